// stateroom.h as C# sees it: every declaration that the wrapper uses, with the names of C.

using System;
using System.Runtime.InteropServices;

namespace Stateroom
{
    static class Native
    {
        // On iOS, and on consoles that link statically, the library is a part of the program.
#if (UNITY_IOS || UNITY_TVOS || STATEROOM_STATIC) && !UNITY_EDITOR
        const string Library = "__Internal";
#else
        const string Library = "stateroom_wasmi";
#endif
        const CallingConvention C = CallingConvention.Cdecl;

        internal const uint InterfaceVersion = 1;

        [StructLayout(LayoutKind.Sequential)]
        internal struct Buffer
        {
            internal IntPtr Data;
            internal UIntPtr Capacity, Length;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct Limits
        {
            internal UIntPtr Size, MaxModuleBytes, MaxMemoryBytes, MaxTableElements, MaxInstanceBytes,
                MaxFunctionLocals, MaxStackBytes, MaxRecursionDepth, MaxMessageBytes, MaxInboxEvents,
                MaxInboxBytes, MaxOutboxMessages, MaxOutboxBytes, MaxClients, MaxRoomIdBytes,
                MaxLogBytesPerEvent, MaxLogBytesPerSecond;
            internal ulong MaxFuelPerEvent, FuelPerSlice;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct LoadOptions
        {
            internal UIntPtr Size;
            internal IntPtr Limits;
            internal int Compilation, PayloadBuffer, Snapshots, Simd;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct FaultPolicy
        {
            internal int OnFault;
            internal uint MaxRestarts;
            internal ulong FirstWait, LongestWait;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct HostOptions
        {
            internal UIntPtr Size;
            internal IntPtr User;
            // Pointers to functions, so that nothing here is garbage collected.
            internal IntPtr Send, Connected, Disconnected, Closed, Log, TakeCost, Clock;
            internal ulong UnixTimeAtZero, Seed;
            internal FaultPolicy FaultPolicy;
            internal UIntPtr MaxRooms;
            internal int MaxLogLevel;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct Message
        {
            internal ulong Room;
            internal int Recipient;
            internal uint Client;
            internal int IsText;
            internal IntPtr Data;
            internal UIntPtr Length;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct ClosedRoom
        {
            internal ulong Room;
            internal IntPtr Id;
            internal UIntPtr IdLength;
            internal int Fault;
            internal IntPtr FaultText;
            internal UIntPtr FaultTextLength;
            internal IntPtr Clients;
            internal UIntPtr ClientCount;
            internal IntPtr Stats;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct LogLine
        {
            internal int Level;
            internal IntPtr Text;
            internal UIntPtr TextLength;
            internal IntPtr Target;
            internal UIntPtr TargetLength;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct RoomStats
        {
            internal UIntPtr Size;
            internal int State, HasNullAllocator;
            internal UIntPtr Clients, WaitingEvents, MemoryBytes, InstanceBytes, HibernatedBytes;
            internal ulong EventsHandled, MessagesIn, MessagesOut, FuelUsed, HostWork, Faults;
        }

        [UnmanagedFunctionPointer(C)]
        internal delegate int SendCallback(IntPtr user, ref Message message);

        [UnmanagedFunctionPointer(C)]
        internal delegate void ClosedCallback(IntPtr user, ref ClosedRoom room);

        [UnmanagedFunctionPointer(C)]
        internal delegate void LogCallback(IntPtr user, ref LogLine line);

        [DllImport(Library, CallingConvention = C)]
        internal static extern uint stateroom_interface_version();

        [DllImport(Library, CallingConvention = C)]
        internal static extern int stateroom_limits_default(ref Limits limits, ref Buffer error);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int stateroom_module_load(byte[] wasm, UIntPtr length,
            ref LoadOptions options, out IntPtr module, ref Buffer error);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int stateroom_module_free(ref IntPtr module, IntPtr error);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int stateroom_message_is_for(ref Message message, uint client);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int stateroom_host_new(ref HostOptions options, out IntPtr host,
            ref Buffer error);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int stateroom_host_free(ref IntPtr host, IntPtr error);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int stateroom_host_poll(HostHandle host, ulong now, ulong fuel,
            ulong deadline, out ulong pollAt, ref Buffer error);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int stateroom_room_open(HostHandle host, ulong now, byte[] id,
            UIntPtr idLength, ModuleHandle module, IntPtr options, out ulong room, ref Buffer error);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int stateroom_room_save(HostHandle host, ulong now, ulong room,
            byte[] data, UIntPtr capacity, out UIntPtr length, ref Buffer error);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int stateroom_room_load(HostHandle host, ulong now, ModuleHandle module,
            byte[] snapshot, UIntPtr length, IntPtr options, out ulong room, ref Buffer error);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int stateroom_room_hibernate(HostHandle host, ulong now, ulong room,
            ref Buffer error);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int stateroom_room_close(HostHandle host, ulong room, ref Buffer error);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int stateroom_room_discard(HostHandle host, ulong room, ref Buffer error);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int stateroom_room_connect(HostHandle host, ulong room, uint client,
            ref Buffer error);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int stateroom_room_disconnect(HostHandle host, ulong room, uint client,
            ref Buffer error);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int stateroom_room_text(HostHandle host, ulong room, uint client,
            byte[] text, UIntPtr length, ref Buffer error);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int stateroom_room_bytes(HostHandle host, ulong room, uint client,
            byte[] bytes, UIntPtr length, ref Buffer error);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int stateroom_room_get_stats(HostHandle host, ulong room,
            ref RoomStats stats, ref Buffer error);

        internal static UIntPtr SizeOf<T>() { return (UIntPtr)Marshal.SizeOf(typeof(T)); }
    }

    // Frees a module when nobody uses it any more, on any thread.
    sealed class ModuleHandle : SafeHandle
    {
        internal ModuleHandle(IntPtr module) : base(IntPtr.Zero, true) { SetHandle(module); }
        public override bool IsInvalid { get { return handle == IntPtr.Zero; } }
        protected override bool ReleaseHandle()
        {
            return Native.stateroom_module_free(ref handle, IntPtr.Zero) == 0;
        }
    }

    // Frees a host, and then what its callbacks find it by.
    sealed class HostHandle : SafeHandle
    {
        GCHandle user;

        internal HostHandle(IntPtr host, GCHandle user) : base(IntPtr.Zero, true)
        {
            this.user = user;
            SetHandle(host);
        }
        public override bool IsInvalid { get { return handle == IntPtr.Zero; } }
        protected override bool ReleaseHandle()
        {
            bool freed = Native.stateroom_host_free(ref handle, IntPtr.Zero) == 0;
            user.Free();
            return freed;
        }
    }
}
