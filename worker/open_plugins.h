// This rank's plugins, while the loop's thread knows of them.  Internal to
// worker.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "plugin_client.h"
#include "worker.h"

namespace bulkhead {

class Worker::OpenPlugins {
 public:
  explicit OpenPlugins(Worker& worker) : worker_(worker) {}
  // The loop's thread lets go of the client before it is destroyed.
  ~OpenPlugins();
  OpenPlugins(const OpenPlugins&) = delete;
  OpenPlugins& operator=(const OpenPlugins&) = delete;

  // Once; hosts that have come meanwhile are attached.
  void open(PluginClient::Options options, const std::vector<PluginRoute>& routes,
            std::map<std::string, PluginClient::Restored> restored);
  bool are_open() const { return client_ != nullptr; }
  PluginClient& client() { return *client_; }

 private:
  Worker& worker_;
  std::unique_ptr<PluginClient> client_;
};

}  // namespace bulkhead
