#include "cgroups/stats.h"

#include <stdio.h>

#include "cgroups/files.h"

namespace moat::cgroups {

uint64_t working_set(uint64_t usage, uint64_t inactive_file) {
    return usage > inactive_file ? usage - inactive_file : 0;
}

std::optional<Pressure> read_pressure(const std::string& file) {
    const auto text = read_file(file);
    if (!text.ok()) {
        return std::nullopt;
    }
    const auto line = [&](const char* format) -> std::optional<Stall> {
        for (size_t at = 0; at < text->size();) {
            Stall stall;
            unsigned long long total = 0;
            if (sscanf(text->c_str() + at, format, &stall.avg10, &stall.avg60, &stall.avg300,
                       &total) == 4) {
                stall.total_us = total;
                return stall;
            }
            const size_t end = text->find('\n', at);
            at = end == std::string::npos ? text->size() : end + 1;
        }
        return std::nullopt;
    };
    const auto some = line("some avg10=%lf avg60=%lf avg300=%lf total=%llu");
    if (!some) {
        return std::nullopt;
    }
    return Pressure{*some, line("full avg10=%lf avg60=%lf avg300=%lf total=%llu")};
}

}  // namespace moat::cgroups
