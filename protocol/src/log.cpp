#include "protocol/log.h"

#include <cstdlib>

#include <spdlog/sinks/stdout_sinks.h>

namespace bulkhead {

void start_log(const std::string& process) {
  auto logger = std::make_shared<spdlog::logger>(process, std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_pattern("%Y-%m-%d %H:%M:%S.%e %l [%n] %v");
  const char* wanted = std::getenv("BULKHEAD_LOG");
  const std::string name = wanted != nullptr ? wanted : "info";
  const auto level = spdlog::level::from_str(name);  // "off" for any unknown name
  const bool known = level != spdlog::level::off || name == "off";
  logger->set_level(known ? level : spdlog::level::info);
  if (!known)
    logger->warn(
        "BULKHEAD_LOG={}: not a level (trace, debug, info, warning, error, critical, off); taking info",
        name);
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace bulkhead
