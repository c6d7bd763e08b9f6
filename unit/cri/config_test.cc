// The configuration file, its sample, the command line over it, and what a log line looks like.

#include <spdlog/details/log_msg.h>

#include <nlohmann/json.hpp>

#include "cri/base/files.h"
#include "cri/base/log.h"
#include "cri/config/config_file.h"
#include "cri/config/setting_table.h"
#include "unit/cri/temp_dir.h"
#include "unit/cri/test.h"

using namespace moat::cri;

namespace {

std::string refusal(const std::string& text) {
    Settings settings;
    return message_of(parse_config(text, "moatd.toml", settings));
}

std::string line_of(LogFormat format, const std::string& text) {
    spdlog::memory_buf_t buffer;
    spdlog::details::log_msg message("moatd", spdlog::level::info, text);
    make_log_formatter(format)->format(message, buffer);
    return {buffer.data(), buffer.size()};
}

}  // namespace

TEST_CASE("configuration: the sample has every setting with the default that is in the code") {
    const auto sample = read_file(MOAT_SOURCE_DIR "/manifests/moatd.toml", 1 << 20);
    REQUIRE_MESSAGE(sample.ok(), message_of(sample));
    CHECK_MESSAGE(*sample == write_config(Settings()),
                  "make it anew: moatd config default > manifests/moatd.toml");
    Settings read;
    read.root = "/elsewhere";
    REQUIRE(parse_config(*sample, "sample", read).ok());
    for (const Setting& setting : setting_table()) {
        CAPTURE(setting.key);
        CHECK(same_value(read, Settings(), setting));
    }
}

TEST_CASE("configuration: what is written is read back, quotes and control characters too") {
    Settings settings;
    settings.root = "/a \"b\"\\c\n\x01";
    settings.registry_mirrors = {"docker.io=http://m", "x=https://y"};
    settings.strace = true;
    Settings read;
    const auto parsed = parse_config(write_config(settings), "f", read);
    REQUIRE_MESSAGE(parsed.ok(), message_of(parsed));
    for (const Setting& setting : setting_table()) {
        CAPTURE(setting.key);
        CHECK(same_value(read, settings, setting));
    }
}

TEST_CASE("configuration: errors name file, line and key") {
    CHECK(refusal("root = \"/r\"\nrout = \"/x\"\n") == "moatd.toml:2: unknown setting rout");
    CHECK(refusal("[log]\nlevel = \"info\"\ncolour = 1\n") ==
          "moatd.toml:3: unknown setting log.colour");
    CHECK(refusal("[logs]\nlevel = \"info\"\n") == "moatd.toml:1: unknown setting logs");
    CHECK(refusal("\nroot = 7\n") == "moatd.toml:2: root: wants a string, has an integer");
    CHECK(refusal("strace = \"yes\"") == "moatd.toml:1: strace: wants a boolean, has a string");
    CHECK(refusal("[registry]\nmirrors = [\"a\", 1]") ==
          "moatd.toml:2: registry.mirrors: wants a list of strings, has an integer");
    CHECK(refusal("log = 3") == "moatd.toml:1: unknown setting log");
    CHECK(contains(refusal("[log]\nlevel = \"loud\""),
                   "moatd.toml:2: log.level: \"loud\": not one of"));
    CHECK(contains(refusal("root = \"/a\"\nroot = \"/b\"\n"), "moatd.toml:2: "));
    CHECK(contains(refusal("root = \n"), "moatd.toml:1: "));
}

TEST_CASE("configuration: a text with an error changes nothing") {
    Settings settings;
    CHECK_FALSE(parse_config("root = \"/r\"\nrout = 1\n", "f", settings).ok());
    CHECK(settings.root == Settings().root);
}

TEST_CASE("configuration: the command line overrides the file, the file the defaults") {
    const TempDir dir;
    REQUIRE(write_file(dir / "moatd.toml",
                       "root = \"/from-file\"\nstate = \"/state\"\n[log]\njson = true\n")
                .ok());
    ConfigSource source{dir / "moatd.toml",
                        true,
                        {{"--root", {"/first", "/from-line"}},
                         {"--log-json", {"false"}},
                         {"--registry-mirror", {"a=http://b", "c=http://d"}}}};
    const auto settings = load_settings(source);
    REQUIRE_MESSAGE(settings.ok(), message_of(settings));
    CHECK(settings->root == "/from-line");
    CHECK(settings->state == "/state");
    CHECK_FALSE(settings->log_json);
    CHECK(settings->registry_mirrors.size() == 2);
    CHECK(settings->cni_conf_dir == Settings().cni_conf_dir);
    for (const Override& wrong :
         {Override{"--log-level", {"loud"}}, Override{"--log-json", {"maybe"}},
          Override{"--registry-mirror", {"no-equals"}}, Override{"--root", {"relative"}}}) {
        CAPTURE(wrong.flag);
        source.overrides = {wrong};
        const auto refused = load_settings(source);
        REQUIRE_FALSE(refused.ok());
        CHECK(refused.error().code() == EINVAL);
    }
}

TEST_CASE("configuration: a missing file is an error only when it was asked for") {
    const TempDir dir;
    CHECK(load_settings({dir / "none", false, {}}).ok());
    CHECK(contains(message_of(load_settings({dir / "none", true, {}})), dir / "none"));
}

TEST_CASE("configuration: every key and flag is there once") {
    std::vector<std::string> names;
    for (const Setting& setting : setting_table()) {
        names.push_back(setting.key);
        names.push_back(flag_of(setting));
    }
    std::sort(names.begin(), names.end());
    CHECK(std::adjacent_find(names.begin(), names.end()) == names.end());
}

TEST_CASE("log: fields of the thread's scopes are on every line, in both formats") {
    const LogScope pod("pod", "p1");
    const LogScope outer("container", "c1");
    {
        const LogScope inner("container", "c 2");
        const std::string text = line_of(LogFormat::kText, "started");
        CHECK(contains(text, " level=info msg=started container=\"c 2\" pod=p1\n"));
        CHECK_FALSE(contains(text, "c1"));
    }
    const auto line = nlohmann::json::parse(line_of(LogFormat::kJson, "a \"b\""));
    CHECK(line["msg"] == "a \"b\"");
    CHECK(line["pod"] == "p1");
    CHECK(line["container"] == "c1");
    CHECK(line["level"] == "info");
}

TEST_CASE("log: a client's text cannot make lines or fields") {
    const std::string hostile =
        "x\ntime=0 level=info msg=forged pod=z\x1f"
        "pod\x1ez";
    const std::string text = line_of(LogFormat::kText, hostile);
    CHECK(std::count(text.begin(), text.end(), '\n') == 1);
    CHECK(contains(text, "msg=\"x\\ntime=0"));
    const auto line = nlohmann::json::parse(line_of(LogFormat::kJson, hostile + "\xff"));
    CHECK(line.size() == 3);
}

TEST_CASE("log: what repeats is let through by the bucket, and the rest is counted") {
    LogLimit limit(3, 2);
    int admitted = 0;
    for (int i = 0; i < 10; ++i) {
        admitted += limit.admit(1000).admitted ? 1 : 0;
    }
    CHECK(admitted == 3);
    const auto later = limit.admit(1500);
    CHECK(later.admitted);
    CHECK(later.suppressed == 7);
    CHECK_FALSE(limit.admit(1500).admitted);
}
