// Rooms in C#: a counter with two clients, which is saved and loaded, a module that is none, and a guest that
// never returns.

using System;
using System.IO;
using Stateroom;

static class Program
{
    static void Main(string[] arguments)
    {
        string folder = arguments.Length > 0 ? arguments[0] : "../rooms/wasm";

        using (var counter = new Module(File.ReadAllBytes(Path.Combine(folder, "counter-c.wasm")), null, snapshots: true))
        using (var hostile = new Module(File.ReadAllBytes(Path.Combine(folder, "hostile-rust-small.wasm")),
            new Limits { MaxFuelPerEvent = 1000000, FuelPerSlice = 100000 }))
        using (var host = new Host(Print)) {
            host.Closed = room => Console.WriteLine("{0} is closed: {1}", room.Id, room.Fault);

            ulong lobby = host.Open(0, "lobby", counter);
            ulong trap = host.Open(0, "trap", hostile);
            host.Connect(lobby, 1);
            host.Connect(lobby, 2);
            host.Connect(trap, 3);
            host.SendText(lobby, 1, "+");
            host.SendText(trap, 3, "loop");
            host.SendText(lobby, 2, "+41");

            // What Update() does once a frame, with a budget.
            ulong now = 0;
            while (now != Host.Never)
                now = host.Poll(now, fuel: 500000);

            Console.WriteLine("{0} clients, after a message to a room that is closed: {1}",
                host.Stats(lobby).Clients, host.SendText(trap, 3, "hello"));
            // As when the game is suspended, and started again.
            byte[] saved = host.Save(0, lobby);
            host.Discard(lobby);
            lobby = host.Load(0, counter, saved);
            host.SendText(lobby, 1, "+");
            host.Poll(0);

            try {
                new Module(new byte[] { 1, 2, 3 });
            } catch (StateroomException exception) {
                Console.WriteLine("not a module: {0}", exception.Message);
            }
        }
    }

    static SendResult Print(Message message)
    {
        for (uint client = 1; client <= 2; client++)
            if (message.IsFor(client))
                Console.WriteLine("to client {0}: {1}", client, message.Text);
        return SendResult.Sent;
    }
}
