#include "progress_display.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <sys/ioctl.h>
#include <unistd.h>

namespace bulkhead {
namespace {

constexpr auto kRedrawInterval = std::chrono::milliseconds(100);

template <class... Values>
std::string format(const char* form, Values... values) {
  char buffer[128];
  std::snprintf(buffer, sizeof(buffer), form, values...);
  return buffer;
}

// What comes from plugins must not move the cursor.
std::string printable(const std::string& text) {
  std::string clean = text;
  for (char& c : clean) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  }
  return clean;
}

bool starts_character(char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }

std::size_t columns_of(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), starts_character));
}

std::string cut(const std::string& text, std::size_t width) {
  if (columns_of(text) <= width) return text;
  if (width == 0) return "";
  std::size_t bytes = 0;
  for (std::size_t shown = 0; bytes < text.size(); ++bytes) {
    if (starts_character(text[bytes]) && shown++ == width - 1) break;
  }
  return text.substr(0, bytes) + "…";
}

std::string rate_text(double rate) {
  if (rate >= 1e6) return format("%.2fM tokens/s", rate / 1e6);
  return rate >= 1e4 ? format("%.1fk tokens/s", rate / 1e3) : format("%.0f tokens/s", rate);
}

// In order of worth: a narrow terminal loses the last ones.
std::vector<std::string> head_parts(const ProgressState& state) {
  std::vector<std::string> parts;
  if (!state.phase.empty() && state.phase != "training") parts.push_back(printable(state.phase));
  const std::string epochs = state.max_epochs > 0 ? "/" + std::to_string(state.max_epochs) : "";
  const std::string epoch = "epoch " + std::to_string(state.epoch + 1) + epochs;
  std::string step = "step " + std::to_string(state.step);
  if (state.max_steps > 0) step += "/" + std::to_string(state.max_steps);
  parts.push_back(step);
  if (state.loss) parts.push_back(format("loss %.4f", *state.loss));
  if (state.tokens_per_second) parts.push_back(rate_text(*state.tokens_per_second));
  if (const auto eta = eta_seconds(state)) parts.push_back("ETA " + clock_time(*eta));
  parts.push_back(epoch);
  return parts;
}

std::string plugin_line(const PluginProgress& plugin, std::size_t name_columns) {
  const std::string name = printable(plugin.name);
  std::string line =
      "  " + name + std::string(name_columns - columns_of(name) + 2, ' ') + printable(plugin.state);
  if (plugin.restarts > 0)
    line += "  " + std::to_string(plugin.restarts) + (plugin.restarts == 1 ? " restart" : " restarts");
  return line;
}

}  // namespace

std::optional<double> eta_seconds(const ProgressState& state) {
  const std::int64_t done = state.step - state.first_step;
  if (done <= 0 || state.max_steps < state.step || state.max_steps == 0) return std::nullopt;
  return state.seconds / static_cast<double>(done) * static_cast<double>(state.max_steps - state.step);
}

std::string clock_time(double seconds) {
  if (!(seconds >= 0) || seconds > 3.6e8) return "–";
  const auto whole = static_cast<long>(std::lround(seconds));
  if (whole < 3600) return format("%ld:%02ld", whole / 60, whole % 60);
  return format("%ld:%02ld:%02ld", whole / 3600, whole / 60 % 60, whole % 60);
}

std::vector<std::string> render(const ProgressState& state, std::size_t width) {
  std::string head = cut(printable(state.run), width);
  for (const std::string& part : head_parts(state)) {
    if (columns_of(head) + 2 + columns_of(part) > width) break;
    head += "  " + part;
  }
  std::vector<std::string> lines = {head};
  std::size_t name_columns = 0;
  for (const PluginProgress& plugin : state.plugins) {
    name_columns = std::max(name_columns, columns_of(printable(plugin.name)));
  }
  for (const PluginProgress& plugin : state.plugins)
    lines.push_back(cut(plugin_line(plugin, name_columns), width));
  return lines;
}

std::string plain_line(const ProgressState& state) {
  std::string line = printable(state.run);
  for (const std::string& part : head_parts(state)) line += "  " + part;
  return line;
}

ProgressDisplay::ProgressDisplay(int fd) : fd_(fd), is_terminal_(::isatty(fd) == 1) {
  const char* terminal = std::getenv("TERM");
  if (terminal == nullptr || std::string_view(terminal) == "dumb") is_terminal_ = false;
}

ProgressDisplay::ProgressDisplay(int fd, bool is_terminal, std::size_t columns, std::size_t rows)
    : fd_(fd), is_terminal_(is_terminal), columns_(columns), rows_(rows) {}

void ProgressDisplay::update(const ProgressState& state, TimePoint now) {
  if (!is_terminal_) return;
  state_ = state;
  if (drawn_at_ && now - *drawn_at_ < kRedrawInterval) return;
  drawn_at_ = now;
  redraw();
}

void ProgressDisplay::log_step(const ProgressState& state, TimePoint now) {
  if (is_terminal_) return update(state, now);
  write(plain_line(state) + "\n");
}

void ProgressDisplay::event(const std::string& text) {
  if (!is_terminal_) return write(printable(text) + "\n");
  write(erased() + printable(text) + "\n");
  const bool had_block = lines_drawn_ > 0;
  lines_drawn_ = 0;
  if (had_block) redraw();
}

void ProgressDisplay::finish() {
  if (is_terminal_ && drawn_at_) redraw();
  lines_drawn_ = 0;
  drawn_at_.reset();
}

void ProgressDisplay::redraw() {
  const auto lines = block();
  std::string text = erased();
  for (const std::string& line : lines) text += line + "\n";
  write(text);
  lines_drawn_ = lines.size();
}

std::string ProgressDisplay::erased() const {
  return lines_drawn_ == 0 ? "" : "\x1b[" + std::to_string(lines_drawn_) + "A\r\x1b[J";
}

// A line as wide as the terminal could wrap, and a block as high as it would
// scroll: both would break redrawing in place.
std::vector<std::string> ProgressDisplay::block() const {
  std::size_t columns = columns_, rows = rows_;
  winsize size{};
  if (columns == 0 && ::ioctl(fd_, TIOCGWINSZ, &size) == 0) {
    columns = size.ws_col;
    rows = size.ws_row;
  }
  if (columns == 0) columns = 80;
  if (rows == 0) rows = 24;
  auto lines = render(state_, columns - 1);
  const std::size_t most = std::max<std::size_t>(rows, 3) - 1;
  if (lines.size() > most) {
    const std::size_t hidden = lines.size() - most + 1;
    lines.resize(most - 1);
    lines.push_back("  … " + std::to_string(hidden) + " more");
  }
  return lines;
}

void ProgressDisplay::write(const std::string& text) const {
  std::string_view rest = text;
  while (!rest.empty()) {
    const ssize_t written = ::write(fd_, rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;
    rest.remove_prefix(static_cast<std::size_t>(written));
  }
}

}  // namespace bulkhead
