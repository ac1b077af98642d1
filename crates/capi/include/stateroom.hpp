// stateroom.hpp: Stateroom rooms in C++17, on top of stateroom.h, which says more about each call.
//
// A function that can fail returns a `result`: either a value or an `error`. Modules and hosts free
// themselves; they are moved, not copied. Nothing here throws but result::value() and allocations,
// and all of it compiles without exceptions.

#ifndef STATEROOM_HPP
#define STATEROOM_HPP

#include "stateroom.h"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>
#if __has_include(<version>)
#include <version>
#endif
#ifdef __cpp_lib_span
#include <span>
#endif

namespace stateroom {

// ==== Small types =============================================================================

// The key of a room.
using room_key = stateroom_room;

// A time of the program's, from any origin.
using time = std::chrono::nanoseconds;

// Bytes of somebody else's.
#ifdef __cpp_lib_span
using bytes = std::span<const std::byte>;
#else
class bytes {
public:
    constexpr bytes() = default;
    constexpr bytes(const std::byte *data, std::size_t size) : data_(data), size_(size) {}
    constexpr const std::byte *data() const { return data_; }
    constexpr std::size_t size() const { return size_; }
    constexpr bool empty() const { return size_ == 0; }
    constexpr const std::byte *begin() const { return data_; }
    constexpr const std::byte *end() const { return data_ + size_; }
    constexpr std::byte operator[](std::size_t index) const { return data_[index]; }

private:
    const std::byte *data_ = nullptr;
    std::size_t size_ = 0;
};
#endif

inline bytes as_bytes(const void *data, std::size_t size)
{
    return {static_cast<const std::byte *>(data), size};
}

// The bytes of a container, such as a std::vector or a std::string_view.
template <class Container>
bytes as_bytes(const Container &container)
{
    return as_bytes(container.data(), container.size() * sizeof(*container.data()));
}

// A struct of stateroom.h: its size is set, and the rest is 0.
template <class T>
struct sized : T {
    sized() : T{} { this->size = sizeof(T); }
};
using load_options = sized<stateroom_load_options>;
using host_options = sized<stateroom_host_options>;
using room_options = sized<stateroom_room_options>;
using module_info = sized<stateroom_module_info>;
using heap_estimate = sized<stateroom_heap_estimate>;
using room_stats = sized<stateroom_room_stats>;
using host_stats = sized<stateroom_host_stats>;
using snapshot_options = sized<stateroom_snapshot_options>;
using snapshot_info = sized<stateroom_snapshot_info>;

// The limits of a module and its rooms: those for a server or a desktop, to change what you must.
struct limits : sized<stateroom_limits> {
    limits() { stateroom_limits_default(this, nullptr); }

    // Those for a microcontroller.
    static limits small()
    {
        limits small;
        stateroom_limits_small(&small, nullptr);
        return small;
    }
};

// ==== Errors ==================================================================================

// Why a function did nothing.
class error {
public:
    error(stateroom_status status, std::string message)
        : status_(status), message_(std::move(message))
    {
    }
    stateroom_status status() const { return status_; }
    const std::string &message() const { return message_; }

private:
    stateroom_status status_;
    std::string message_;
};

namespace detail {
[[noreturn]] inline void raise(const error &error)
{
#if defined(__cpp_exceptions) || defined(_CPPUNWIND)
    throw std::runtime_error(error.message());
#else
    std::fprintf(stderr, "%s\n", error.message().c_str());
    std::abort();
#endif
}

struct nothing {};
} // namespace detail

// What a function returns: true and the value, or false and the error.
template <class T>
class [[nodiscard]] result {
public:
    result(T value) : value_(std::move(value)) {}
    result(class error error) : error_(std::move(error)) {}

    explicit operator bool() const { return value_.has_value(); }
    T &operator*() { return *value_; }
    T *operator->() { return &*value_; }

    // Only if it has failed.
    const class error &error() const { return *error_; }

    // The value. If there is none, throws a std::runtime_error, or without exceptions aborts.
    T value() &&
    {
        if (!value_)
            detail::raise(*error_);
        return std::move(*value_);
    }

private:
    std::optional<T> value_;
    std::optional<class error> error_;
};

// Of a function that has no value to return.
using outcome = result<detail::nothing>;

namespace detail {
// Calls a function of stateroom.h with a buffer for its message.
template <class Function>
outcome call(Function function)
{
    char message[4096] = {0};
    stateroom_buffer buffer{message, sizeof message, 0};
    const stateroom_status status = function(&buffer);
    if (status == STATEROOM_STATUS_OK)
        return nothing{};
    return error(status, message);
}

// The same for one that writes a value.
template <class T, class Function>
result<T> call(T value, Function function)
{
    if (outcome done = call([&](stateroom_buffer *error) { return function(value, error); }); !done)
        return done.error();
    return result<T>(std::move(value));
}

// The same for one that lists: first asks how many there are.
template <class T, class Function>
result<std::vector<T>> list(Function function)
{
    return call(std::vector<T>(), [&](std::vector<T> &all, stateroom_buffer *error) {
        std::size_t count = 0;
        const stateroom_status status = function(nullptr, 0, &count, error);
        all.resize(count);
        return status != STATEROOM_STATUS_OK ? status : function(all.data(), count, &count, error);
    });
}

// The same for one that writes a text: first asks how long it is.
template <class Function>
result<std::string> text(Function function)
{
    return call(std::string(), [&](std::string &text, stateroom_buffer *error) {
        stateroom_buffer buffer{nullptr, 0, 0};
        const stateroom_status status = function(&buffer, error);
        if (status != STATEROOM_STATUS_OK || buffer.length == 0)
            return status;
        text.resize(buffer.length);
        // The NUL that a std::string ends with is overwritten by another.
        buffer = {text.data(), text.size() + 1, 0};
        return function(&buffer, error);
    });
}
} // namespace detail

// ==== Modules =================================================================================

// A module, compiled and checked; its rooms may outlive it.
class module {
public:
    static result<module> load(bytes wasm, const load_options &options = {})
    {
        return detail::call(module(), [&](module &loaded, stateroom_buffer *error) {
            stateroom_module *raw = nullptr;
            const stateroom_status status =
                stateroom_module_load(wasm.data(), wasm.size(), &options, &raw, error);
            loaded.handle_.reset(raw);
            return status;
        });
    }

    static result<module> load(bytes wasm, const limits &limits)
    {
        load_options options;
        options.limits = &limits;
        return load(wasm, options);
    }

    static result<heap_estimate> estimate_heap(bytes wasm, const limits &limits = {})
    {
        return detail::call(heap_estimate(), [&](heap_estimate &estimate, stateroom_buffer *error) {
            return stateroom_module_estimate_heap(wasm.data(), wasm.size(), &limits, &estimate, error);
        });
    }

    result<module_info> info() const
    {
        return detail::call(module_info(), [&](module_info &info, stateroom_buffer *error) {
            return stateroom_module_get_info(get(), &info, error);
        });
    }

    result<limits> get_limits() const
    {
        return detail::call(limits(), [&](limits &limits, stateroom_buffer *error) {
            return stateroom_module_get_limits(get(), &limits, error);
        });
    }

    const stateroom_module *get() const { return handle_.get(); }

private:
    module() = default;

    struct deleter {
        void operator()(stateroom_module *raw) const { stateroom_module_free(&raw, nullptr); }
    };
    std::unique_ptr<stateroom_module, deleter> handle_;
};

// ==== What a host calls =======================================================================

enum class send_result : stateroom_send_result {
    sent = STATEROOM_SEND_RESULT_SENT,
    would_block = STATEROOM_SEND_RESULT_WOULD_BLOCK,
    failed = STATEROOM_SEND_RESULT_FAILED,
};

// A message that a room sends. Valid during the callback.
class message {
public:
    explicit message(const stateroom_message &raw) : raw_(raw) {}

    room_key room() const { return raw_.room; }
    bool is_text() const { return raw_.is_text != 0; }
    std::string_view text() const
    {
        return {static_cast<const char *>(raw_.data), raw_.length};
    }
    stateroom::bytes bytes() const { return as_bytes(raw_.data, raw_.length); }
    // Whether it is for a client of the room that is connected.
    bool is_for(std::uint32_t client) const { return stateroom_message_is_for(&raw_, client) != 0; }
    const stateroom_message &get() const { return raw_; }

private:
    const stateroom_message &raw_;
};

// A guest's failure.
struct fault {
    stateroom_fault kind = STATEROOM_FAULT_NONE;
    std::string text;
};

// What a host tells the program, by the thread that polls it. An exception that leaves one of these
// functions ends the process.
class handler {
public:
    virtual ~handler() = default;

    virtual send_result send(const message &message) = 0;
    virtual send_result connected(room_key, std::uint32_t /* client */) { return send_result::sent; }
    virtual send_result disconnected(room_key, std::uint32_t /* client */) { return send_result::sent; }
    virtual void closed(const stateroom_closed_room &) {}
    virtual void log(stateroom_log_level, std::string_view /* text */, std::string_view /* target */)
    {
    }
    virtual std::uint64_t take_cost() { return 0; }
};

// ==== Hosts ===================================================================================

// How much a poll may do.
struct budget {
    std::uint64_t fuel = STATEROOM_UNLIMITED;
    // On the clock of poll's `now`.
    std::optional<time> deadline = std::nullopt;
};

// Runs rooms.
class host {
public:
    // The handler must outlive the host, and is what the callbacks of `options` would be. Of these,
    // only `clock` may be set; its `user` is the handler.
    static result<host> create(handler &handler, host_options options = {})
    {
        options.user = &handler;
        options.send = [](void *user, const stateroom_message *raw) noexcept {
            return static_cast<stateroom_send_result>(to(user).send(message(*raw)));
        };
        options.connected = [](void *user, room_key room, std::uint32_t client) noexcept {
            return static_cast<stateroom_send_result>(to(user).connected(room, client));
        };
        options.disconnected = [](void *user, room_key room, std::uint32_t client) noexcept {
            return static_cast<stateroom_send_result>(to(user).disconnected(room, client));
        };
        options.closed = [](void *user, const stateroom_closed_room *raw) noexcept {
            to(user).closed(*raw);
        };
        options.log = [](void *user, const stateroom_log_line *line) noexcept {
            to(user).log(line->level, {line->text, line->text_length},
                         {line->target, line->target_length});
        };
        options.take_cost = [](void *user) noexcept { return to(user).take_cost(); };
        return detail::call(host(), [&](host &made, stateroom_buffer *error) {
            stateroom_host *raw = nullptr;
            const stateroom_status status = stateroom_host_new(&options, &raw, error);
            made.handle_.reset(raw);
            return status;
        });
    }

    // Runs rooms within a budget. Returns when to poll next: not after `now` if work is left;
    // nothing if there is none.
    result<std::optional<time>> poll(time now, const budget &budget = {})
    {
        const std::uint64_t deadline = budget.deadline ? nanos(*budget.deadline) : STATEROOM_NEVER;
        std::uint64_t poll_at = STATEROOM_NEVER;
        if (outcome done = detail::call([&](stateroom_buffer *error) {
                return stateroom_host_poll(get(), nanos(now), budget.fuel, deadline, &poll_at, error);
            });
            !done)
            return done.error();
        return at(poll_at);
    }

    result<std::optional<time>> poll_time() const
    {
        std::uint64_t poll_at = STATEROOM_NEVER;
        if (outcome done = detail::call([&](stateroom_buffer *error) {
                return stateroom_host_get_poll_time(get(), &poll_at, error);
            });
            !done)
            return done.error();
        return at(poll_at);
    }

    result<room_key> open(time now, std::string_view id, const module &module,
                      const room_options &options = {})
    {
        return detail::call(room_key(STATEROOM_NO_ROOM), [&](room_key &room, stateroom_buffer *error) {
            return stateroom_room_open(get(), nanos(now), id.data(), id.size(), module.get(),
                                       &options, &room, error);
        });
    }

    // Opens a room from a snapshot, under the id that it has there.
    result<room_key> load(time now, const module &module, bytes snapshot,
                          const snapshot_options &options = {})
    {
        return detail::call(room_key(STATEROOM_NO_ROOM), [&](room_key &room, stateroom_buffer *error) {
            return stateroom_room_load(get(), nanos(now), module.get(), snapshot.data(),
                                       snapshot.size(), &options, &room, error);
        });
    }

    // The room as bytes, from which load makes one that goes on exactly here. The module must have
    // been loaded with `snapshots`.
    result<std::vector<std::byte>> save(time now, room_key room)
    {
        return detail::call(std::vector<std::byte>(), [&](std::vector<std::byte> &snapshot,
                                                          stateroom_buffer *error) {
            for (;;) {
                std::size_t length = 0;
                const stateroom_status status = stateroom_room_save(
                    get(), nanos(now), room, snapshot.data(), snapshot.size(), &length, error);
                if (status == STATEROOM_STATUS_OK || status == STATEROOM_STATUS_TOO_SMALL) {
                    const bool is_whole = status == STATEROOM_STATUS_OK;
                    snapshot.resize(length);
                    if (!is_whole)
                        continue;
                }
                return status;
            }
        });
    }

    // Replaces the guest of an idle room by its state, until an event or the timer wakes it.
    outcome hibernate(time now, room_key room)
    {
        return detail::call([&](stateroom_buffer *error) {
            return stateroom_room_hibernate(get(), nanos(now), room, error);
        });
    }

    outcome close(room_key room)
    {
        return detail::call(
            [&](stateroom_buffer *error) { return stateroom_room_close(get(), room, error); });
    }

    outcome discard(room_key room)
    {
        return detail::call(
            [&](stateroom_buffer *error) { return stateroom_room_discard(get(), room, error); });
    }

    outcome connect(room_key room, std::uint32_t client)
    {
        return detail::call([&](stateroom_buffer *error) {
            return stateroom_room_connect(get(), room, client, error);
        });
    }

    outcome disconnect(room_key room, std::uint32_t client)
    {
        return detail::call([&](stateroom_buffer *error) {
            return stateroom_room_disconnect(get(), room, client, error);
        });
    }

    outcome text(room_key room, std::uint32_t client, std::string_view text)
    {
        return detail::call([&](stateroom_buffer *error) {
            return stateroom_room_text(get(), room, client, text.data(), text.size(), error);
        });
    }

    outcome bytes(room_key room, std::uint32_t client, stateroom::bytes bytes)
    {
        return detail::call([&](stateroom_buffer *error) {
            return stateroom_room_bytes(get(), room, client, bytes.data(), bytes.size(), error);
        });
    }

    result<room_key> find(std::string_view id) const
    {
        return detail::call(room_key(STATEROOM_NO_ROOM), [&](room_key &room, stateroom_buffer *error) {
            return stateroom_host_find_room(get(), id.data(), id.size(), &room, error);
        });
    }

    result<std::vector<room_key>> rooms() const
    {
        return detail::list<room_key>(
            [&](room_key *rooms, std::size_t capacity, std::size_t *count, stateroom_buffer *error) {
                return stateroom_host_get_rooms(get(), rooms, capacity, count, error);
            });
    }

    result<std::vector<std::uint32_t>> clients(room_key room) const
    {
        return detail::list<std::uint32_t>([&](std::uint32_t *clients, std::size_t capacity,
                                               std::size_t *count, stateroom_buffer *error) {
            return stateroom_room_get_clients(get(), room, clients, capacity, count, error);
        });
    }

    result<std::string> id(room_key room) const
    {
        return detail::text([&](stateroom_buffer *id, stateroom_buffer *error) {
            return stateroom_room_get_id(get(), room, id, error);
        });
    }

    // The latest fault, which the room may have survived.
    result<fault> last_fault(room_key room) const
    {
        fault last;
        auto text = detail::text([&](stateroom_buffer *buffer, stateroom_buffer *error) {
            return stateroom_room_get_fault(get(), room, &last.kind, buffer, error);
        });
        if (!text)
            return text.error();
        last.text = std::move(*text);
        return result<fault>(std::move(last));
    }

    result<room_stats> stats(room_key room) const
    {
        return detail::call(room_stats(), [&](room_stats &stats, stateroom_buffer *error) {
            return stateroom_room_get_stats(get(), room, &stats, error);
        });
    }

    result<host_stats> stats() const
    {
        return detail::call(host_stats(), [&](host_stats &stats, stateroom_buffer *error) {
            return stateroom_host_get_stats(get(), &stats, error);
        });
    }

    // How many bytes of unused memory went back to the operating system.
    result<std::size_t> trim(room_key room)
    {
        return detail::call(std::size_t(0), [&](std::size_t &released, stateroom_buffer *error) {
            return stateroom_room_trim(get(), room, &released, error);
        });
    }

    stateroom_host *get() const { return handle_.get(); }

private:
    host() = default;

    static handler &to(void *user) { return *static_cast<handler *>(user); }
    static std::uint64_t nanos(time at) { return static_cast<std::uint64_t>(at.count()); }
    static std::optional<time> at(std::uint64_t nanos)
    {
        if (nanos == STATEROOM_NEVER)
            return std::nullopt;
        return time(static_cast<time::rep>(nanos));
    }

    struct deleter {
        void operator()(stateroom_host *raw) const { stateroom_host_free(&raw, nullptr); }
    };
    std::unique_ptr<stateroom_host, deleter> handle_;
};

} // namespace stateroom

#endif
