// How each hook is called with what the host sends, and what it gives is handed
// back.  Nothing here is for plugin authors.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "bulkhead/abi.h"
#include "bulkhead/hooks.h"

namespace bulkhead {
inline namespace sdk_v5 {
namespace entry {

using Invoke = void (*)(Plugin&, Context&, const abi::Call&, const abi::Host&);

template <void (Plugin::*kMember)(Context&)>
void notify(Plugin& plugin, Context& ctx, const abi::Call&, const abi::Host&) {
  (plugin.*kMember)(ctx);
}

template <void (Plugin::*kMember)(Batch&, Context&)>
void transform(Plugin& plugin, Context& ctx, const abi::Call& call, const abi::Host& host) {
  Batch batch(call.tensors, call.tensor_count, &host, call.device);
  (plugin.*kMember)(batch, ctx);
  batch.hand_over(host);
}

inline void poll_stop(Plugin& plugin, Context& ctx, const abi::Call&, const abi::Host&) {
  if (!plugin.should_stop(ctx)) return;
  if (!(ctx.control.flags() & abi::kStop)) ctx.control.stop(ctx.plugin + " said should_stop");
}

inline void configure(Plugin& plugin, Context& ctx, const abi::Call& call, const abi::Host& host) {
  const Config config(*call.config);
  plugin.configure(config, ctx).hand_over(host);
}

inline void image(Plugin& plugin, Context& ctx, const abi::Call& call, const abi::Host& host) {
  Image image(*call.tensors);
  plugin.transform_image(image, ctx);
  image.hand_over(host);
}

inline void caption(Plugin& plugin, Context& ctx, const abi::Call& call, const abi::Host& host) {
  const std::string caption = plugin.transform_caption(std::string(abi::view(call.caption)), ctx);
  host.caption(host.self, abi::text(caption));
}

inline void sample(Plugin& plugin, Context& ctx, const abi::Call& call, const abi::Host& host) {
  Sample sample(*call.tensors, abi::view(call.caption));
  plugin.transform_sample(sample, ctx);
  sample.image.hand_over(host);
  host.caption(host.self, abi::text(sample.caption));
}

inline void preprocess(Plugin& plugin, Context& ctx, const abi::Call& call, const abi::Host& host) {
  plugin.preprocess(Json::of(*call.rows), ctx).hand_over(host);
}

inline void keep(Plugin& plugin, Context& ctx, const abi::Call& call, const abi::Host& host) {
  host.verdict(host.self, plugin.keep(Json::of(*call.rows), ctx));
}

inline void encode(Plugin& plugin, Context& ctx, const abi::Call& call, const abi::Host& host) {
  plugin.encode(Json::of(*call.rows), ctx).hand_over(host);
}

inline void collate(Plugin& plugin, Context& ctx, const abi::Call& call, const abi::Host& host) {
  const std::vector<TokenSample> samples = TokenSample::of(call.tensors, call.tensor_count);
  Batch batch;
  plugin.collate(samples, batch, ctx);
  batch.hand_over_changed(host);
}

inline void save_state(Plugin& plugin, Context&, const abi::Call&, const abi::Host& host) {
  const std::string state = plugin.state_dict();
  host.state(host.self, abi::text(state));
}

inline void load_state(Plugin& plugin, Context&, const abi::Call& call, const abi::Host&) {
  plugin.load_state_dict(abi::view(call.state));
}

// clang-format off
inline Invoke find_hook(std::string_view name) {
#define BULKHEAD_NOTIFY(hook) \
  if (name == #hook) return notify<&Plugin::hook>;
#define BULKHEAD_TRANSFORM(hook) \
  if (name == #hook) return transform<&Plugin::hook>;
  BULKHEAD_NOTIFY(on_step_start)
  BULKHEAD_NOTIFY(on_backward_end)
  BULKHEAD_NOTIFY(on_substep_end)
  BULKHEAD_NOTIFY(on_optimizer_step_start)
  BULKHEAD_NOTIFY(on_optimizer_step_end)
  BULKHEAD_NOTIFY(on_step_end)
  if (name == "should_stop") return poll_stop;
  BULKHEAD_TRANSFORM(transform_train_batch)
  if (name == "collate") return collate;
  if (name == "preprocess") return preprocess;
  if (name == "keep") return keep;
  if (name == "encode") return encode;
  if (name == "transform_image") return image;
  if (name == "transform_caption") return caption;
  if (name == "transform_sample") return sample;
  BULKHEAD_NOTIFY(on_log)
  BULKHEAD_NOTIFY(on_validate_step_end)
  BULKHEAD_NOTIFY(on_test_step_end)
  BULKHEAD_TRANSFORM(transform_validate_batch)
  BULKHEAD_TRANSFORM(transform_test_batch)
  if (name == "state_dict") return save_state;
  if (name == "load_state_dict") return load_state;
  if (name == "configure") return configure;
  BULKHEAD_NOTIFY(setup)
  BULKHEAD_NOTIFY(on_train_start)
  BULKHEAD_NOTIFY(on_train_end)
  BULKHEAD_NOTIFY(on_epoch_start)
  BULKHEAD_NOTIFY(on_epoch_end)
  BULKHEAD_NOTIFY(on_exception)
  BULKHEAD_NOTIFY(on_validate_start)
  BULKHEAD_NOTIFY(on_validate_end)
  BULKHEAD_NOTIFY(on_test_start)
  BULKHEAD_NOTIFY(on_test_end)
  BULKHEAD_NOTIFY(on_save_start)
  BULKHEAD_NOTIFY(on_save_end)
  BULKHEAD_NOTIFY(on_load)
#undef BULKHEAD_NOTIFY
#undef BULKHEAD_TRANSFORM
  return nullptr;
}
// clang-format on

}  // namespace entry
}  // namespace sdk_v5
}  // namespace bulkhead
