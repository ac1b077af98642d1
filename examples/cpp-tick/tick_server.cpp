// A game server with 60 ticks a second and 500 rooms, which may use a part of each tick: with every
// room well behaved, and again with one that spins without an end. Prints the worst tick of both.
//
//   tick_server FOLDER [TICKS]                in real time, 300 ticks by default
//   tick_server FOLDER [TICKS] --benchmark    without sleep and without the budget of time, so that
//                                             fuel is the same on every machine
//
// FOLDER has the modules of examples/rooms/wasm. Fails if a tick used more fuel than it may. Time is
// only printed, since it depends on what else the machine does.

#include <stateroom.hpp>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr std::size_t rooms = 500;
constexpr std::uint32_t clients = 4;
constexpr auto tick_length = std::chrono::nanoseconds(std::chrono::seconds(1)) / 60;

// What the rooms together may use of a tick: fuel, and time in case the machine is slow.
constexpr std::uint64_t fuel_per_tick = 4'000'000;
constexpr auto time_per_tick = tick_length / 2;

// A guest is paused after so much, so that is by how much a tick may exceed its fuel.
constexpr std::uint64_t fuel_per_slice = 50'000;

// More than the room that spins will ever get, so that it is not stopped.
constexpr std::uint64_t endless = 1'000'000'000'000'000;

// A client moves its cursor every six ticks, and once a second all of them do so at once, which is
// more than fits into a tick.
constexpr int ticks_per_message = 6;
constexpr int ticks_per_rush = 60;

struct Figures {
    std::uint64_t worst_fuel = 0;
    std::chrono::nanoseconds worst_time{0};
    // Ticks that left messages over for the next one.
    int late_ticks = 0;
};

// Counts what would be sent.
class Network final : public stateroom::handler {
public:
    stateroom::send_result send(const stateroom::message &message) override
    {
        for (std::uint32_t client = 1; client <= clients; client++)
            sent_bytes_ += message.is_for(client) ? message.bytes().size() : 0;
        return stateroom::send_result::sent;
    }

    void closed(const stateroom_closed_room &room) override
    {
        std::fprintf(stderr, "%.*s is closed: %.*s\n", static_cast<int>(room.id_length), room.id,
                     static_cast<int>(room.fault_text_length), room.fault_text);
    }

private:
    std::size_t sent_bytes_ = 0;
};

class Server {
public:
    Server(const stateroom::module &cursors, const stateroom::module &hostile, bool spins)
        : host_(stateroom::host::create(network_).value())
    {
        while (rooms_.size() < (spins ? rooms - 1 : rooms))
            open(cursors);
        // The rooms start before the first tick, behind a loading screen as it were.
        host_.poll(now_).value();
        if (spins) {
            open(hostile);
            host_.text(rooms_.back(), 1, "loop").value();
            rooms_with_players_ = rooms - 1;
        }
        used_ = total_used();
    }

    // The host has the address of the network.
    Server(const Server &) = delete;
    Server &operator=(const Server &) = delete;

    // Puts in what has arrived since the last tick, and lets the rooms work.
    void tick(int number, bool with_deadline)
    {
        now_ = number * tick_length;
        for (std::size_t room = 0; room < rooms_with_players_; room++)
            for (std::uint32_t client = 1; client <= clients; client++)
                if (moves(number, static_cast<int>(room + client)))
                    move_cursor(rooms_[room], client);

        stateroom::budget budget{fuel_per_tick};
        if (with_deadline)
            budget.deadline = now_ + time_per_tick;
        const auto start = std::chrono::steady_clock::now();
        host_.poll(now_, budget).value();
        const auto took = std::chrono::steady_clock::now() - start;

        const std::uint64_t before = std::exchange(used_, total_used());
        figures_.worst_fuel = std::max(figures_.worst_fuel, used_ - before);
        figures_.worst_time = std::max<std::chrono::nanoseconds>(figures_.worst_time, took);
        figures_.late_ticks += host_.stats().value().waiting_events > 0;
    }

    const Figures &figures() const { return figures_; }

private:
    void open(const stateroom::module &module)
    {
        const std::string id = "room " + std::to_string(rooms_.size());
        rooms_.push_back(host_.open(now_, id, module).value());
        for (std::uint32_t client = 1; client <= clients; client++)
            host_.connect(rooms_.back(), client).value();
    }

    static bool moves(int tick, int phase)
    {
        return tick % ticks_per_rush == 0 || (tick + phase) % ticks_per_message == 0;
    }

    void move_cursor(stateroom::room_key room, std::uint32_t client)
    {
        const std::array<std::uint16_t, 2> position{static_cast<std::uint16_t>(client), 7};
        host_.bytes(room, client, stateroom::as_bytes(position)).value();
    }

    std::uint64_t total_used() const
    {
        std::uint64_t total = 0;
        for (const auto room : rooms_) {
            const auto stats = host_.stats(room).value();
            total += stats.fuel_used + stats.host_work;
        }
        return total;
    }

    Network network_;
    stateroom::host host_;
    std::vector<stateroom::room_key> rooms_;
    std::size_t rooms_with_players_ = rooms;
    stateroom::time now_{0};
    std::uint64_t used_ = 0;
    Figures figures_;
};

stateroom::module load(const std::string &path, stateroom::limits limits)
{
    std::ifstream file(path, std::ios::binary);
    const std::vector<char> wasm{std::istreambuf_iterator<char>(file), {}};
    limits.fuel_per_slice = fuel_per_slice;
    return stateroom::module::load(stateroom::as_bytes(wasm), limits).value();
}

double milliseconds(std::chrono::nanoseconds time)
{
    return std::chrono::duration<double, std::milli>(time).count();
}

void print(const char *what, const Figures &figures)
{
    std::printf("%-20s worst tick %8llu units, %6.2f ms; ticks that left messages over: %d\n", what,
                static_cast<unsigned long long>(figures.worst_fuel), milliseconds(figures.worst_time),
                figures.late_ticks);
}

Figures run(const std::string &folder, int ticks, bool benchmark, bool spins)
{
    stateroom::limits patient;
    patient.max_fuel_per_event = endless;
    const auto cursors = load(folder + "/cursors-rust-0.4.wasm", {});
    const auto hostile = load(folder + "/hostile-rust-small.wasm", patient);

    Server server(cursors, hostile, spins);
    const auto start = std::chrono::steady_clock::now();
    for (int number = 0; number < ticks; number++) {
        if (!benchmark)
            std::this_thread::sleep_until(start + number * tick_length);
        server.tick(number, !benchmark);
    }
    return server.figures();
}

} // namespace

int main(int argc, char **argv)
{
    const bool benchmark = argc > 1 && std::string_view(argv[argc - 1]) == "--benchmark";
    const int arguments = benchmark ? argc - 1 : argc;
    if (arguments < 2 || arguments > 3) {
        std::fprintf(stderr, "usage: tick_server FOLDER [TICKS] [--benchmark]\n");
        return 2;
    }
    const int ticks = arguments > 2 ? std::atoi(argv[2]) : 300;

    std::printf("%zu rooms of %u clients, %d ticks of %.1f ms with %llu units of fuel\n", rooms, clients,
                ticks, milliseconds(tick_length), static_cast<unsigned long long>(fuel_per_tick));
    const Figures without = run(argv[1], ticks, benchmark, false);
    print("every room behaves", without);
    const Figures with = run(argv[1], ticks, benchmark, true);
    print("one room spins", with);

    if (std::max(with.worst_fuel, without.worst_fuel) > fuel_per_tick + fuel_per_slice) {
        std::fprintf(stderr, "a tick used more than its fuel and one slice\n");
        return 1;
    }
    if (benchmark && with.worst_fuel > without.worst_fuel + fuel_per_tick / 10) {
        std::fprintf(stderr, "the room that spins makes the worst tick longer by more than a tenth of the budget\n");
        return 1;
    }
    return 0;
}
