// Stateroom rooms in C#. stateroom.h says more about each call.
//
// Dispose of a host before its domain is unloaded, in Unity in OnDestroy: the library outlives a
// domain, its callbacks do not.

using System;
using System.Runtime.InteropServices;
using System.Text;
#if UNITY_5_3_OR_NEWER
using AOT;
#endif

namespace Stateroom
{
    // What a call for a client returns, since clients cause these: the numbers of stateroom.h.
    public enum Status
    {
        Ok = 0,
        UnknownRoom = 48,
        Closed = 49,
        InvalidClient = 50,
        AlreadyConnected = 51,
        NotConnected = 52,
        RoomFull = 53,
        MessageTooLong = 54,
        InboxFull = 55,
    }

    public enum SendResult { Sent = 0, WouldBlock = 1, Failed = 2 }

    public enum Recipient { Broadcast = 0, Client = 1, EveryoneExcept = 2 }

    public enum OnFault { Close = 1, Restart = 2, Continue = 3, Rollback = 4 }

    // Every other failure.
    public sealed class StateroomException : Exception
    {
        public int Status { get; private set; }

        internal StateroomException(int status, string message) : base(message) { Status = status; }
    }

    // Those for a desktop, to change what you must.
    public sealed class Limits
    {
        internal Native.Limits Raw;

        public Limits()
        {
            Raw.Size = Native.SizeOf<Native.Limits>();
            using (var error = new ErrorText())
                error.Check(Native.stateroom_limits_default(ref Raw, ref error.Buffer));
        }

        public long MaxMemoryBytes { set { Raw.MaxMemoryBytes = (UIntPtr)value; } }
        public long MaxMessageBytes { set { Raw.MaxMessageBytes = (UIntPtr)value; } }
        public long MaxInboxEvents { set { Raw.MaxInboxEvents = (UIntPtr)value; } }
        public long MaxInboxBytes { set { Raw.MaxInboxBytes = (UIntPtr)value; } }
        public long MaxOutboxMessages { set { Raw.MaxOutboxMessages = (UIntPtr)value; } }
        public long MaxOutboxBytes { set { Raw.MaxOutboxBytes = (UIntPtr)value; } }
        public long MaxClients { set { Raw.MaxClients = (UIntPtr)value; } }
        public ulong MaxFuelPerEvent { set { Raw.MaxFuelPerEvent = value; } }
        public ulong FuelPerSlice { set { Raw.FuelPerSlice = value; } }
    }

    // A module, compiled and checked; its rooms may outlive it.
    public sealed class Module : IDisposable
    {
        internal readonly ModuleHandle Handle;

        public Module(byte[] wasm, Limits limits = null, bool snapshots = false)
        {
            if (Native.stateroom_interface_version() != Native.InterfaceVersion)
                throw new DllNotFoundException("stateroom_wasmi has another interface version");
            var options = new Native.LoadOptions { Size = Native.SizeOf<Native.LoadOptions>() };
            options.Snapshots = snapshots ? 1 : 0;
            IntPtr module;
            var pinned = GCHandle.Alloc((limits ?? new Limits()).Raw, GCHandleType.Pinned);
            using (var error = new ErrorText()) {
                try {
                    options.Limits = pinned.AddrOfPinnedObject();
                    error.Check(Native.stateroom_module_load(wasm, (UIntPtr)wasm.Length, ref options,
                        out module, ref error.Buffer));
                } finally {
                    pinned.Free();
                }
            }
            Handle = new ModuleHandle(module);
        }

        public void Dispose() { Handle.Dispose(); }
    }

    // A message that a room sends. Valid during the callback.
    public struct Message
    {
        Native.Message raw;

        internal Message(Native.Message raw) { this.raw = raw; }

        public ulong Room { get { return raw.Room; } }
        public Recipient Recipient { get { return (Recipient)raw.Recipient; } }
        public uint Client { get { return raw.Client; } }
        public bool IsText { get { return raw.IsText != 0; } }
        public int Length { get { return checked((int)raw.Length); } }

        // Whether it is for a client of the room that is connected.
        public bool IsFor(uint client) { return Native.stateroom_message_is_for(ref raw, client) != 0; }

        public string Text { get { return Encoding.UTF8.GetString(ToArray()); } }

        public byte[] ToArray()
        {
            var bytes = new byte[Length];
            CopyTo(bytes);
            return bytes;
        }

        // Into an array that is used again, so that nothing is allocated.
        public void CopyTo(byte[] bytes) { Marshal.Copy(raw.Data, bytes, 0, Length); }
    }

    public sealed class ClosedRoom
    {
        public ulong Room { get; internal set; }
        public string Id { get; internal set; }
        // Null if it did not fail.
        public string Fault { get; internal set; }
    }

    public struct RoomStats
    {
        internal Native.RoomStats Raw;

        public long Clients { get { return (long)Raw.Clients; } }
        public long WaitingEvents { get { return (long)Raw.WaitingEvents; } }
        public long MemoryBytes { get { return (long)Raw.MemoryBytes; } }
        public ulong FuelUsed { get { return Raw.FuelUsed; } }
        public ulong Faults { get { return Raw.Faults; } }
    }

    // Runs rooms. Use it on one thread at a time, and not from its callbacks.
    public sealed class Host : IDisposable
    {
        public const ulong Unlimited = ulong.MaxValue;
        public const ulong Never = ulong.MaxValue;

        readonly HostHandle handle;
        readonly ErrorText error = new ErrorText();
        readonly Func<Message, SendResult> send;
        Exception thrown;
        byte[] utf8 = new byte[256];

        // When a room has ended.
        public Action<ClosedRoom> Closed;

        // What guests print, and what happens to rooms.
        public Action<string> Log;

        public Host(Func<Message, SendResult> send, OnFault onFault = OnFault.Close, ulong seed = 0)
        {
            this.send = send;
            // The callbacks find the host by it, and it does not keep the host alive.
            var user = GCHandle.Alloc(this, GCHandleType.Weak);
            var options = new Native.HostOptions { Size = Native.SizeOf<Native.HostOptions>() };
            options.User = GCHandle.ToIntPtr(user);
            options.Send = Marshal.GetFunctionPointerForDelegate(onSend);
            options.Closed = Marshal.GetFunctionPointerForDelegate(onClosed);
            options.Log = Marshal.GetFunctionPointerForDelegate(onLog);
            options.Seed = seed;
            options.FaultPolicy.OnFault = (int)onFault;
            IntPtr host;
            int status = Native.stateroom_host_new(ref options, out host, ref error.Buffer);
            if (status != 0)
                user.Free();
            error.Check(status);
            handle = new HostHandle(host, user);
        }

        public void Dispose()
        {
            handle.Dispose();
            error.Dispose();
        }

        // Runs rooms until they have used the fuel, or until the deadline, on the clock of `now`.
        // Returns when to poll next: not after `now` if work is left, Never if there is none. Times
        // are nanoseconds from any origin.
        public ulong Poll(ulong now, ulong fuel = Unlimited, ulong deadline = Never)
        {
            ulong pollAt;
            int status = Native.stateroom_host_poll(handle, now, fuel, deadline, out pollAt,
                ref error.Buffer);
            GC.KeepAlive(this);
            var exception = thrown;
            thrown = null;
            if (exception != null)
                throw new InvalidOperationException("a callback has thrown", exception);
            error.Check(status);
            return pollAt;
        }

        public ulong Open(ulong now, string id, Module module)
        {
            ulong room;
            int length = Encode(id);
            error.Check(Native.stateroom_room_open(handle, now, utf8, (UIntPtr)length, module.Handle,
                IntPtr.Zero, out room, ref error.Buffer));
            return room;
        }

        // The room as bytes, from which Load makes one that goes on exactly here. Its module must have
        // been loaded with `snapshots`.
        public byte[] Save(ulong now, ulong room)
        {
            var snapshot = new byte[1024];
            for (;;) {
                UIntPtr length;
                int status = Native.stateroom_room_save(handle, now, room, snapshot,
                    (UIntPtr)snapshot.Length, out length, ref error.Buffer);
                GC.KeepAlive(this);
                if (status != TooSmall)
                    error.Check(status);
                var size = checked((int)length);
                if (status == 0) {
                    Array.Resize(ref snapshot, size);
                    return snapshot;
                }
                snapshot = new byte[size];
            }
        }

        const int TooSmall = 8;

        // Opens a room from a snapshot, under the id that it has there.
        public ulong Load(ulong now, Module module, byte[] snapshot)
        {
            ulong room;
            error.Check(Native.stateroom_room_load(handle, now, module.Handle, snapshot,
                (UIntPtr)snapshot.Length, IntPtr.Zero, out room, ref error.Buffer));
            return room;
        }

        // Replaces the guest of an idle room by its state, until an event or the timer wakes it.
        public void Hibernate(ulong now, ulong room)
        {
            error.Check(Native.stateroom_room_hibernate(handle, now, room, ref error.Buffer));
            GC.KeepAlive(this);
        }

        public void Close(ulong room)
        {
            error.Check(Native.stateroom_room_close(handle, room, ref error.Buffer));
        }

        public void Discard(ulong room)
        {
            error.Check(Native.stateroom_room_discard(handle, room, ref error.Buffer));
        }

        public Status Connect(ulong room, uint client)
        {
            return ForClient(Native.stateroom_room_connect(handle, room, client, ref error.Buffer));
        }

        public Status Disconnect(ulong room, uint client)
        {
            return ForClient(Native.stateroom_room_disconnect(handle, room, client, ref error.Buffer));
        }

        public Status SendText(ulong room, uint client, string text)
        {
            int length = Encode(text);
            return ForClient(Native.stateroom_room_text(handle, room, client, utf8, (UIntPtr)length,
                ref error.Buffer));
        }

        public Status SendBytes(ulong room, uint client, byte[] bytes, int length)
        {
            if (length < 0 || length > bytes.Length)
                throw new ArgumentOutOfRangeException("length");
            return ForClient(Native.stateroom_room_bytes(handle, room, client, bytes, (UIntPtr)length,
                ref error.Buffer));
        }

        public RoomStats Stats(ulong room)
        {
            var stats = new RoomStats();
            stats.Raw.Size = Native.SizeOf<Native.RoomStats>();
            error.Check(Native.stateroom_room_get_stats(handle, room, ref stats.Raw, ref error.Buffer));
            return stats;
        }

        Status ForClient(int status)
        {
            if (status != 0 && !Enum.IsDefined(typeof(Status), status))
                error.Check(status);
            return (Status)status;
        }

        // Into an array that is used again.
        int Encode(string text)
        {
            int most = Encoding.UTF8.GetMaxByteCount(text.Length);
            if (utf8.Length < most)
                utf8 = new byte[Math.Max(most, 2 * utf8.Length)];
            return Encoding.UTF8.GetBytes(text, 0, text.Length, utf8, 0);
        }

        // Static, and kept by static fields: C has only their addresses, so the garbage collector
        // must not take them. IL2CPP compiles for C the methods with this attribute alone, and these
        // must be static.
        static readonly Native.SendCallback onSend = OnSend;
        static readonly Native.ClosedCallback onClosed = OnClosed;
        static readonly Native.LogCallback onLog = OnLog;

        [MonoPInvokeCallback(typeof(Native.SendCallback))]
        static int OnSend(IntPtr user, ref Native.Message message)
        {
            var host = From(user);
            try {
                return (int)host.send(new Message(message));
            } catch (Exception exception) {
                host.Caught(exception);
                return (int)SendResult.Failed;
            }
        }

        [MonoPInvokeCallback(typeof(Native.ClosedCallback))]
        static void OnClosed(IntPtr user, ref Native.ClosedRoom raw)
        {
            var host = From(user);
            try {
                if (host.Closed != null)
                    host.Closed(new ClosedRoom {
                        Room = raw.Room,
                        Id = ErrorText.Read(raw.Id, raw.IdLength),
                        Fault = ErrorText.Read(raw.FaultText, raw.FaultTextLength),
                    });
            } catch (Exception exception) {
                host.Caught(exception);
            }
        }

        [MonoPInvokeCallback(typeof(Native.LogCallback))]
        static void OnLog(IntPtr user, ref Native.LogLine line)
        {
            // None while the finalizer frees a host that nobody has disposed of.
            var host = From(user);
            if (host == null || host.Log == null)
                return;
            try {
                host.Log(ErrorText.Read(line.Text, line.TextLength));
            } catch (Exception exception) {
                host.Caught(exception);
            }
        }

        static Host From(IntPtr user) { return (Host)GCHandle.FromIntPtr(user).Target; }

        // Exceptions must not cross C; the poll throws the first one again.
        void Caught(Exception exception) { thrown = thrown ?? exception; }
    }

    // Memory for the message of a call that fails.
    sealed class ErrorText : IDisposable
    {
        const int Capacity = 4096;

        internal Native.Buffer Buffer;

        internal ErrorText()
        {
            Buffer.Data = Marshal.AllocHGlobal(Capacity);
            Buffer.Capacity = (UIntPtr)Capacity;
        }

        ~ErrorText() { Free(); }

        public void Dispose()
        {
            Free();
            GC.SuppressFinalize(this);
        }

        internal void Check(int status)
        {
            if (status == 0)
                return;
            // A text that does not fit is cut off after a whole character, and ended by a NUL there.
            var length = Math.Min((ulong)Buffer.Length, Capacity - 1);
            throw new StateroomException(status, Read(Buffer.Data, (UIntPtr)length).Split('\0')[0]);
        }

        internal static string Read(IntPtr text, UIntPtr length)
        {
            if (text == IntPtr.Zero)
                return null;
            var bytes = new byte[checked((int)length)];
            Marshal.Copy(text, bytes, 0, bytes.Length);
            return Encoding.UTF8.GetString(bytes);
        }

        void Free()
        {
            Marshal.FreeHGlobal(Buffer.Data);
            Buffer.Data = IntPtr.Zero;
        }
    }

#if !UNITY_5_3_OR_NEWER
    // Unity's is in the namespace AOT.
    [AttributeUsage(AttributeTargets.Method)]
    sealed class MonoPInvokeCallbackAttribute : Attribute
    {
        public MonoPInvokeCallbackAttribute(Type type) { }
    }
#endif
}
