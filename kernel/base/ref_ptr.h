#pragma once

#include <atomic>
#include <cstddef>
#include <utility>

#include "kernel/base/check.h"

namespace moat {

/// Intrusive reference count. An object is born with one reference, which adopt_ref() takes over.
/// The last unref() calls `delete` on the most derived type through its virtual destructor.
class RefCounted {
  public:
    RefCounted(const RefCounted&) = delete;
    RefCounted& operator=(const RefCounted&) = delete;

    void ref() const { refs_.fetch_add(1, std::memory_order_relaxed); }
    void unref() const {
        // acq_rel: what other holders wrote must be seen by the destructor.
        if (refs_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
            const_cast<RefCounted*>(this)->last_unref();
        }
    }
    /// Takes a reference unless the count has already reached zero; for tables of weak pointers
    /// whose lock the destructor takes.
    bool try_ref() const {
        auto n = refs_.load(std::memory_order_relaxed);
        while (n != 0) {
            if (refs_.compare_exchange_weak(n, n + 1, std::memory_order_acq_rel)) {
                return true;
            }
        }
        return false;
    }
    /// A snapshot, for statistics and for "am I the only holder" under the holder's own lock.
    size_t ref_count() const { return refs_.load(std::memory_order_relaxed); }

  protected:
    RefCounted() = default;
    virtual ~RefCounted() = default;
    virtual void last_unref() { delete this; }

  private:
    mutable std::atomic<size_t> refs_{1};
};

/// Owning pointer to a RefCounted object; may be null.
template <typename T>
class RefPtr {
  public:
    constexpr RefPtr() = default;
    constexpr RefPtr(std::nullptr_t) {}
    /// Shares: takes a reference of its own.
    explicit RefPtr(T* p) : p_(p) {
        if (p_ != nullptr) {
            p_->ref();
        }
    }
    RefPtr(const RefPtr& other) : RefPtr(other.p_) {}
    RefPtr(RefPtr&& other) noexcept : p_(std::exchange(other.p_, nullptr)) {}
    template <typename U>
    requires std::is_convertible_v<U*, T*> RefPtr(const RefPtr<U>& other) : RefPtr(other.get()) {}
    template <typename U>
    requires std::is_convertible_v<U*, T*> RefPtr(RefPtr<U>&& other)
    noexcept : p_(other.leak()) {}
    ~RefPtr() { reset(); }
    RefPtr& operator=(RefPtr other) noexcept {
        std::swap(p_, other.p_);
        return *this;
    }

    T* get() const { return p_; }
    T* operator->() const { return p_; }
    T& operator*() const { return *p_; }
    explicit operator bool() const { return p_ != nullptr; }
    bool operator==(const RefPtr& other) const { return p_ == other.p_; }
    bool operator==(const T* other) const { return p_ == other; }
    bool operator==(std::nullptr_t) const { return p_ == nullptr; }
    void reset() {
        if (T* p = std::exchange(p_, nullptr)) {
            p->unref();
        }
    }
    /// Gives up ownership without releasing the reference.
    [[nodiscard]] T* leak() { return std::exchange(p_, nullptr); }
    static RefPtr adopt(T* p) {
        RefPtr r;
        r.p_ = p;
        return r;
    }

  private:
    T* p_ = nullptr;
};

/// Takes over the reference that a new object is born with.
template <typename T>
RefPtr<T> adopt_ref(T* p) {
    return RefPtr<T>::adopt(p);
}

template <typename T, typename... Args>
RefPtr<T> make_ref(Args&&... args) {
    return RefPtr<T>::adopt(new T(std::forward<Args>(args)...));
}

}  // namespace moat
