// A counter: one number that everybody in the room shares.
package main

import (
	"strconv"

	"example.com/my-room/stateroom"
)

// The state of a room, and what happens in it.
type counter struct {
	stateroom.Quiet
	count int64
}

func (c *counter) Connect(client int32) {
	stateroom.SendText(client, strconv.FormatInt(c.count, 10))
}

func (c *counter) Text(client int32, text string) {
	// Clients can send anything.
	switch text {
	case "+":
		c.count++
	case "-":
		c.count--
	default:
		stateroom.SendText(client, "Say + or -.")
		return
	}
	stateroom.SendText(stateroom.Everybody, strconv.FormatInt(c.count, 10))
}

func init() { stateroom.Serve(&counter{}) }

// Never called: the module is a library. The linker wants one.
func main() {}
