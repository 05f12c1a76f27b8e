// Changes some samples, in ways that tests can see; others it spoils.
#include "bulkhead/plugin.h"

struct Samples : bulkhead::Plugin {
  // Samples with even numbers get a random first pixel.
  void transform_image(bulkhead::Image& image, bulkhead::Context& ctx) override {
    ctx.log(std::to_string(*ctx.sample) + " " + ctx.path + " " + std::to_string(image.height()) + "x" +
            std::to_string(image.width()) + " " + std::to_string(image.view()(0, 0, 0)));
    if (*ctx.sample == 13) throw std::runtime_error("thirteen");
    if (*ctx.sample % 2 == 0) image.mutable_view()(0, 0, 0) = static_cast<std::uint8_t>(ctx.rng.below(256));
  }
  std::string transform_caption(std::string caption, bulkhead::Context& ctx) override {
    if (caption == "not text") return "\xff";
    if (caption == "long") return std::string((64 << 10) + 1, 'x');
    if (caption == "same") return caption;
    return caption + " of " + ctx.path + " " + std::to_string(ctx.rng.below(1000));
  }
  void transform_sample(bulkhead::Sample& sample, bulkhead::Context&) override {
    const auto pixels = sample.image.mutable_view().flat();
    for (std::uint8_t& value : pixels) value = 9;
    sample.caption = "nine";
  }
};

BULKHEAD_PLUGIN(Samples)
