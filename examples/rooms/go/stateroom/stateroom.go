// Package stateroom is the ABI 0.2 of Stateroom for rooms in Go. Copy this folder into your own
// module.
//
// A room is a value with the methods of [Room], which is given to [Serve] in an init function:
//
//	type echo struct{ stateroom.Quiet }
//
//	func (echo) Text(client int32, text string) { stateroom.SendText(client, text) }
//
//	func init() { stateroom.Serve(echo{}) }
//
//	func main() {} // never called, but the linker wants one
//
// Build it with
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -ldflags="-s -w" -o echo.wasm ./echo
//
// A room handles one event at a time and is never re-entered. Goroutines run while an event is
// handled, and stand still between events. What is printed, and the message of a panic, goes to the
// host's log.
package stateroom

import "unsafe"

// Everybody is the recipient that stands for all clients.
const Everybody int32 = 0

// EverybodyBut is the recipient that stands for all clients but one.
func EverybodyBut(client int32) int32 { return -client }

// SendText sends a text, which has to be UTF-8, to a client, to Everybody or to EverybodyBut one.
//
//go:wasmimport env send_message
func SendText(recipient int32, text string)

// SendBinary sends a binary message to a client, to Everybody or to EverybodyBut one.
func SendBinary(recipient int32, message []byte) {
	sendBinary(recipient, unsafe.Pointer(unsafe.SliceData(message)), uint32(len(message)))
}

// SetTimer requests one call of Timer after this many milliseconds. There is one timer: setting it
// again replaces it, and 0 cancels it.
//
//go:wasmimport env set_timer
func SetTimer(milliseconds uint32)

// Room is what happens in a room. The ids of clients are greater than zero. Embed [Quiet] to leave
// out what a room does not care about.
type Room interface {
	// Open is called first, with the room's id.
	Open(id string)
	Connect(client int32)
	Disconnect(client int32)
	Text(client int32, text string)
	// Binary gets bytes that are valid until it returns.
	Binary(client int32, message []byte)
	// Timer is called once for each SetTimer.
	Timer()
}

// Quiet is a room that does nothing.
type Quiet struct{}

func (Quiet) Open(id string)                      {}
func (Quiet) Connect(client int32)                {}
func (Quiet) Disconnect(client int32)             {}
func (Quiet) Text(client int32, text string)      {}
func (Quiet) Binary(client int32, message []byte) {}
func (Quiet) Timer()                              {}

// Serve sets the room that receives the events. Call it once, in an init function: main is not
// called in a module of this kind.
func Serve(r Room) { room = r }

var room Room

// The host's function takes an address and a length, which Go does not make of a slice.
//
//go:wasmimport env send_binary
func sendBinary(recipient int32, bytes unsafe.Pointer, length uint32)

// The longest message that the room takes. When memory runs out, Go ends the program, where the ABI
// wants a null pointer.
const maxMessageBytes = 1 << 20

// What the host has allocated. Go frees what nothing in Go points to.
var allocated = map[unsafe.Pointer][]byte{}

//go:wasmexport jam_malloc
func malloc(length uint32) unsafe.Pointer {
	if length > maxMessageBytes {
		return nil
	}
	block := make([]byte, length)
	start := unsafe.Pointer(unsafe.SliceData(block))
	allocated[start] = block
	return start
}

//go:wasmexport jam_free
func free(start unsafe.Pointer, length uint32) { delete(allocated, start) }

// Says that the host may keep the block of a message for the next one, which saves it two calls:
// nothing else uses a block until it is freed. It is never called.
//
//go:wasmexport stateroom_keep_payload_buffer
func keepPayloadBuffer() {}

//go:wasmexport initialize
func initialize(start unsafe.Pointer, length uint32) { room.Open(string(bytes(start, length))) }

//go:wasmexport connect
func connect(client int32) { room.Connect(client) }

//go:wasmexport disconnect
func disconnect(client int32) { room.Disconnect(client) }

//go:wasmexport message
func message(client int32, start unsafe.Pointer, length uint32) {
	room.Text(client, string(bytes(start, length)))
}

//go:wasmexport binary
func binary(client int32, start unsafe.Pointer, length uint32) {
	room.Binary(client, bytes(start, length))
}

//go:wasmexport timer
func timer() { room.Timer() }

func bytes(start unsafe.Pointer, length uint32) []byte {
	return unsafe.Slice((*byte)(start), length)
}
