#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace moat::cri {

/// What moatd's configuration decides. The initialisers are the defaults; config/setting_table.cc
/// has a row for each member, with its name in the file and on the command line.
struct Settings {
    std::string socket = "/run/moat/moatd.sock";
    std::string root =
        "/var/lib/moat";              ///< survives a reboot: database, images, containers' bundles
    std::string state = "/run/moat";  ///< does not: the runtime's sandboxes, network namespaces
    std::string cni_conf_dir = "/etc/cni/net.d";
    std::string cni_bin_dir = "/opt/cni/bin";
    std::vector<std::string> cdi_spec_dirs = {"/etc/cdi", "/var/run/cdi"};  ///< the last one wins
    int64_t cni_timeout_s = 60;  ///< of one call of one plugin
    bool masquerade = true;      ///< of the built-in network
    std::string registry_config_dir = "/etc/moat/certs.d";
    std::vector<std::string> registry_mirrors;     ///< host=url
    std::vector<std::string> pinned_images;        ///< names whose images are never collected
    int64_t pull_stall_seconds = 60;               ///< a registry that sends nothing is given up
    int64_t max_layer_bytes = int64_t{100} << 30;  ///< of one layer's files
    int64_t max_partial_bytes = int64_t{8} << 30;  ///< kept of downloads that broke off
    std::string sentry_path;                       ///< empty: beside moatd
    std::string gofer_path;
    std::string native_runtime;  ///< runc or crun; empty: the first on PATH
    std::string monitor_path;    ///< empty: beside moatd
    std::string pause_path;
    std::string default_handler = "moat";  ///< of a pod whose RuntimeClass names none
    std::string metrics_address;           ///< empty: none
    int64_t shutdown_grace_s = 10;
    std::string stream_address = "127.0.0.1";  ///< of exec, attach and port-forward
    int64_t stream_port = 0;                   ///< 0: any that is free
    std::string stream_tls_cert;               ///< PEM; with stream_tls_key: https
    std::string stream_tls_key;
    std::string log_level = "info";
    bool log_json = false;
    bool strace = false;

    std::string database_path() const { return root + "/moatd.db"; }
    std::string pod_directory(const std::string& id) const { return root + "/pods/" + id; }
    std::string container_directory(const std::string& id) const {
        return root + "/containers/" + id;
    }
    std::string images_directory() const { return root + "/images"; }
    /// The native handler's pods and containers.
    std::string native_directory() const { return state + "/moatd/native"; }
    /// Apart from the runtime's own `state/<id>/`.
    std::string namespaces_directory() const { return state + "/moatd/netns"; }
};

}  // namespace moat::cri
