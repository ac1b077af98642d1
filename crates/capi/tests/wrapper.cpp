// Tests of stateroom.hpp: that each of its functions reaches the one of stateroom.h that it is for.
// `wrapper FOLDER`, where FOLDER has the modules of examples/rooms/wasm; compiled in each dialect
// that the header supports.

#include <stateroom.hpp>

#include <fstream>
#include <iterator>

namespace {

int failed = 0;

#define CHECK(condition)                                                                            \
    do {                                                                                            \
        if (!(condition)) {                                                                         \
            std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                    \
            failed = 1;                                                                             \
        }                                                                                           \
    } while (false)

using namespace std::chrono_literals;

// Records what a host says. It refuses as often as it is told to.
struct Recorder final : stateroom::handler {
    std::vector<std::string> sent;
    std::vector<std::string> events;
    int refusals = 0;

    stateroom::send_result send(const stateroom::message &message) override
    {
        if (refusals > 0) {
            refusals--;
            return stateroom::send_result::would_block;
        }
        CHECK(message.bytes().size() == message.text().size());
        for (std::uint32_t client = 1; client <= 2; client++)
            if (message.is_for(client))
                sent.push_back(std::to_string(client) + (message.is_text() ? ":" : "=") +
                               std::string(message.text()));
        return stateroom::send_result::sent;
    }
    stateroom::send_result connected(stateroom::room_key, std::uint32_t client) override
    {
        events.push_back("connected " + std::to_string(client));
        return stateroom::send_result::sent;
    }
    stateroom::send_result disconnected(stateroom::room_key, std::uint32_t client) override
    {
        events.push_back("disconnected " + std::to_string(client));
        return stateroom::send_result::sent;
    }
    void closed(const stateroom_closed_room &room) override
    {
        events.push_back("closed " + std::string(room.id, room.id_length));
        CHECK(room.fault == STATEROOM_FAULT_NONE);
    }
    void log(stateroom_log_level level, std::string_view text, std::string_view) override
    {
        CHECK(level >= STATEROOM_LOG_LEVEL_ERROR && !text.empty());
        lines++;
    }

    int lines = 0;
};

std::vector<std::uint8_t> read(const std::string &path)
{
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

stateroom::module load(const std::string &folder, const char *name)
{
    const auto wasm = read(folder + "/" + name);
    return stateroom::module::load(stateroom::as_bytes(wasm)).value();
}

void modules(const std::string &folder)
{
    const auto bad = stateroom::module::load(stateroom::as_bytes(std::string_view("no module")));
    CHECK(!bad && bad.error().status() == STATEROOM_STATUS_INVALID_MODULE);
    CHECK(!bad.error().message().empty());

    const auto wasm = read(folder + "/echo-rust-0.4.wasm");
    stateroom::limits limits;
    CHECK(limits.max_clients == 1024 && stateroom::limits::small().max_clients == 8);
    limits.max_clients = 3;
    auto echo = stateroom::module::load(stateroom::as_bytes(wasm), limits).value();
    CHECK(echo.info().value().abi == STATEROOM_ABI_V0_4);
    CHECK(echo.get_limits().value().max_clients == 3);
    CHECK(stateroom::module::estimate_heap(stateroom::as_bytes(wasm)).value().memory > 0);

    limits.max_inbox_events = 1;
    const auto refused = stateroom::module::load(stateroom::as_bytes(wasm), limits);
    CHECK(!refused && refused.error().status() == STATEROOM_STATUS_INVALID_LIMITS);
}

void rooms(const std::string &folder)
{
    Recorder recorder;
    auto made = stateroom::host::create(recorder);
    stateroom::host host = std::move(made).value();
    stateroom::room_key lobby = STATEROOM_NO_ROOM;
    {
        const auto counter = load(folder, "counter-c.wasm");
        lobby = host.open(0ns, "lobby", counter).value();
        const auto taken = host.open(0ns, "lobby", counter);
        CHECK(!taken && taken.error().status() == STATEROOM_STATUS_ID_TAKEN);
    }
    CHECK(host.connect(lobby, 1) && host.connect(lobby, 2));
    CHECK(host.connect(lobby, 2).error().status() == STATEROOM_STATUS_ALREADY_CONNECTED);
    CHECK(host.text(lobby, 1, "+41"));
    CHECK(host.poll_time().value().has_value());
    CHECK(!host.poll(1ms).value().has_value());
    CHECK((recorder.sent == std::vector<std::string>{"1:0", "2:0", "1:41", "2:41"}));

    CHECK(host.find("lobby").value() == lobby && !host.find("attic"));
    CHECK(host.rooms().value() == std::vector{lobby});
    CHECK((host.clients(lobby).value() == std::vector<std::uint32_t>{1, 2}));
    CHECK(host.id(lobby).value() == "lobby");
    CHECK(host.stats(lobby).value().messages_in == 1);
    CHECK(host.stats().value().clients == 2);
    CHECK(host.last_fault(lobby).value().kind == STATEROOM_FAULT_NONE);
    CHECK(host.trim(lobby));

    // What is refused is kept.
    recorder.refusals = 1;
    recorder.sent.clear();
    CHECK(host.text(lobby, 2, "+") && host.poll(2ms));
    CHECK(recorder.sent.empty() && host.stats().value().is_blocked);
    CHECK(host.poll(3ms) && recorder.sent.size() == 2);

    CHECK(host.disconnect(lobby, 2) && host.poll(4ms) && host.close(lobby) && host.poll(5ms));
    CHECK((recorder.events == std::vector<std::string>{"connected 1", "connected 2", "disconnected 2",
                                                       "closed lobby"}));
    CHECK(host.text(lobby, 1, "+").error().status() == STATEROOM_STATUS_UNKNOWN_ROOM);

    const auto echo = load(folder, "echo-c.wasm");
    const auto attic = host.open(6ns, "attic", echo).value();
    const std::vector<std::byte> payload{std::byte{'a'}, std::byte{'b'}};
    recorder.sent.clear();
    CHECK(host.connect(attic, 1) && host.bytes(attic, 1, {payload.data(), payload.size()}));
    CHECK(host.poll(6ms) && recorder.sent == std::vector<std::string>{"1=ab"});
    CHECK(host.discard(attic) && host.rooms().value().empty());
}

void faults_and_budgets(const std::string &folder)
{
    Recorder recorder;
    stateroom::host_options options;
    options.fault_policy.on_fault = STATEROOM_ON_FAULT_CONTINUE;
    auto host = stateroom::host::create(recorder, options).value();
    const auto hostile = load(folder, "hostile-rust-small.wasm");
    const auto room = host.open(0ns, "hostile", hostile).value();
    CHECK(host.connect(room, 1) && host.text(room, 1, "panic") && host.poll(0ns));
    const auto fault = host.last_fault(room).value();
    CHECK(fault.kind == STATEROOM_FAULT_TRAP && !fault.text.empty() && recorder.lines > 0);

    // A slice is a million units, so the first ends either budget.
    CHECK(host.text(room, 1, "loop"));
    stateroom::budget budget;
    budget.fuel = 1;
    CHECK(host.poll(1ms, budget).value() <= std::optional<stateroom::time>(1ms));
    CHECK(host.poll(2ms, {STATEROOM_UNLIMITED, 2ms}).value() <= std::optional<stateroom::time>(2ms));
    CHECK(host.stats(room).value().fuel_used < 4'000'000);
}

void snapshots(const std::string &folder)
{
    Recorder recorder;
    auto host = stateroom::host::create(recorder).value();
    const auto wasm = read(folder + "/counter-c.wasm");
    stateroom::load_options options;
    options.snapshots = 1;
    const auto counter = stateroom::module::load(stateroom::as_bytes(wasm), options).value();
    const auto lobby = host.open(0ns, "lobby", counter).value();
    CHECK(host.connect(lobby, 1) && host.text(lobby, 1, "+41") && host.poll(0ns));
    const auto snapshot = host.save(0ns, lobby).value();
    CHECK(host.discard(lobby));
    const auto loaded = host.load(0ns, counter, stateroom::as_bytes(snapshot)).value();
    CHECK(host.stats(loaded).value().state == STATEROOM_ROOM_STATE_HIBERNATING);
    recorder.sent.clear();
    CHECK(host.text(loaded, 1, "+") && host.poll(0ns));
    CHECK((recorder.sent == std::vector<std::string>{"1:42", "2:42"}));
    CHECK(host.hibernate(0ns, loaded));
    CHECK(host.stats(loaded).value().state == STATEROOM_ROOM_STATE_HIBERNATING);
    const auto bad = host.load(0ns, counter, stateroom::as_bytes(std::string_view("nothing")));
    CHECK(!bad && bad.error().status() == STATEROOM_STATUS_INVALID_SNAPSHOT);
    const auto unknown = host.save(0ns, STATEROOM_NO_ROOM);
    CHECK(!unknown && unknown.error().status() == STATEROOM_STATUS_UNKNOWN_ROOM);
}

} // namespace

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    modules(argv[1]);
    rooms(argv[1]);
    faults_and_budgets(argv[1]);
    snapshots(argv[1]);
    return failed;
}
