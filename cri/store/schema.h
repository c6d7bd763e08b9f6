#pragma once

#include <span>
#include <vector>

namespace moat::cri {

/// Step N brings a file of version N to N + 1. Released steps never change; new ones are appended.
/// Configurations are kept as the client's protobuf bytes, so fields that this version does not
/// know survive an upgrade.
inline const std::vector<std::vector<const char*>> kMigrations = {
    {
        "CREATE TABLE pods ("
        " id TEXT PRIMARY KEY, name TEXT NOT NULL, namespace TEXT NOT NULL, uid TEXT NOT NULL,"
        " attempt INTEGER NOT NULL, handler TEXT NOT NULL, state INTEGER NOT NULL,"
        " created_at INTEGER NOT NULL, config BLOB NOT NULL, network TEXT NOT NULL,"
        " UNIQUE (name, namespace, uid, attempt))",
        "CREATE TABLE containers ("
        " id TEXT PRIMARY KEY, pod_id TEXT NOT NULL REFERENCES pods(id), name TEXT NOT NULL,"
        " attempt INTEGER NOT NULL, state INTEGER NOT NULL, created_at INTEGER NOT NULL,"
        " started_at INTEGER NOT NULL, finished_at INTEGER NOT NULL, exit_code INTEGER NOT NULL,"
        " reason TEXT NOT NULL, message TEXT NOT NULL, image_id TEXT NOT NULL,"
        " image_ref TEXT NOT NULL, chain_id TEXT NOT NULL, log_path TEXT NOT NULL,"
        " config BLOB NOT NULL, details TEXT NOT NULL,"
        " UNIQUE (pod_id, name, attempt))",
        "CREATE INDEX containers_by_chain ON containers(chain_id)",
        "CREATE TABLE addresses (ip TEXT PRIMARY KEY, pod_id TEXT NOT NULL)",
        "CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
        // id: digest of the image's configuration. chain_id: names its root.
        "CREATE TABLE images ("
        " id TEXT PRIMARY KEY, chain_id TEXT NOT NULL, size INTEGER NOT NULL,"
        " config TEXT NOT NULL, created_at INTEGER NOT NULL)",
        // kind 0: tag, 1: digest.
        "CREATE TABLE image_names (name TEXT PRIMARY KEY, kind INTEGER NOT NULL,"
        " image_id TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE)",
        "CREATE INDEX image_names_by_image ON image_names(image_id)",
        // One unpacked layer, by the digest of its uncompressed tar.
        "CREATE TABLE layers (diff_id TEXT PRIMARY KEY, bytes INTEGER NOT NULL, inodes INTEGER NOT "
        "NULL)",
        "CREATE TABLE roots (chain_id TEXT PRIMARY KEY, diff_ids TEXT NOT NULL,"
        " bytes INTEGER NOT NULL, inodes INTEGER NOT NULL)",
    },
    {
        // Which handler runs the pod; `handler` stays what the client said, which may be "".
        "ALTER TABLE pods ADD COLUMN runtime TEXT NOT NULL DEFAULT 'moat'",
    },
    {
        // Of the built-in network; an empty host_ip is every address of the node.
        "CREATE TABLE host_ports (protocol TEXT NOT NULL, host_ip TEXT NOT NULL,"
        " host_port INTEGER NOT NULL, container_port INTEGER NOT NULL, pod_id TEXT NOT NULL,"
        " PRIMARY KEY (protocol, host_ip, host_port))",
    },
    {
        // What UpdateContainerResources made of config's; NULL: as created.
        "ALTER TABLE containers ADD COLUMN resources BLOB",
    },
    {
        // Roots of images that a container has as volumes: they are kept as long as it is there.
        "CREATE TABLE container_volumes (container_id TEXT NOT NULL REFERENCES containers(id)"
        " ON DELETE CASCADE, chain_id TEXT NOT NULL, PRIMARY KEY (container_id, chain_id))",
        "CREATE INDEX container_volumes_by_chain ON container_volumes(chain_id)",
    },
    {
        // The boot whose files may not all be on the disk yet; empty: they are (images/settler.h).
        "ALTER TABLE layers ADD COLUMN unsynced TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE roots ADD COLUMN unsynced TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE images ADD COLUMN unsynced TEXT NOT NULL DEFAULT ''",
    },
    {
        // Goes up whenever images or their names are others: what ImageStore keeps in memory is as
        // good as the file while it has not (images/image_store.h).
        "CREATE TABLE image_changes (count INTEGER NOT NULL)",
        "INSERT INTO image_changes VALUES (0)",
        "CREATE TRIGGER image_added AFTER INSERT ON images"
        " BEGIN UPDATE image_changes SET count=count+1; END",
        "CREATE TRIGGER image_changed AFTER UPDATE OF id, chain_id, size, config, created_at"
        " ON images BEGIN UPDATE image_changes SET count=count+1; END",
        "CREATE TRIGGER image_removed AFTER DELETE ON images"
        " BEGIN UPDATE image_changes SET count=count+1; END",
        "CREATE TRIGGER image_name_added AFTER INSERT ON image_names"
        " BEGIN UPDATE image_changes SET count=count+1; END",
        "CREATE TRIGGER image_name_changed AFTER UPDATE ON image_names"
        " BEGIN UPDATE image_changes SET count=count+1; END",
        "CREATE TRIGGER image_name_removed AFTER DELETE ON image_names"
        " BEGIN UPDATE image_changes SET count=count+1; END",
    },
};

}  // namespace moat::cri
