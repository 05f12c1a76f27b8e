// bulkhead-plugin-host: one native plugin in a process of its own.  Started by
// the coordinator, with everything it needs in its environment.

#include <csignal>
#include <cstdio>
#include <iostream>

#include "plugin_host.h"
#include "protocol/log.h"

int main() {
  using namespace bulkhead;
  // What a plugin printed must be in its log when it dies in the next line.
  std::setvbuf(stdout, nullptr, _IONBF, 0);
  std::cout << std::unitbuf;
  // A person's Ctrl-C is the coordinator's to handle: it stops everybody in order.
  std::signal(SIGINT, SIG_IGN);

  const Result<PluginHostOptions> options = options_from_environment();
  if (!options) {
    std::fprintf(stderr, "%s\n", options.error().message.c_str());
    return 2;
  }
  start_log("host-" + std::to_string(options->plugin.value) + "-" + std::to_string(options->rank));
  EventLoop loop;
  PluginHost host(loop, *options,
                  [&](const std::string& endpoint) { return connect_channel(loop, endpoint); });
  host.start();
  if (!host.exit_status()) loop.run();
  return *host.exit_status();
}
