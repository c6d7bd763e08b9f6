#pragma once

#include <locale.h>

namespace moat::cri {

/// Member names are UTF-8 in a tar; libarchive converts by the thread's locale, and in "C" it would
/// lose them.
class Utf8Locale {
  public:
    Utf8Locale()
        : locale_(newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr)), before_(uselocale(locale_)) {}
    ~Utf8Locale() {
        uselocale(before_);
        if (locale_ != nullptr) {
            freelocale(locale_);
        }
    }
    Utf8Locale(const Utf8Locale&) = delete;
    Utf8Locale& operator=(const Utf8Locale&) = delete;

  private:
    locale_t locale_;
    locale_t before_;
};

}  // namespace moat::cri
