// Echo: everything that a client says is echoed to that client alone.
//
//	from a client                          reply            to
//	a text, also an empty one              the same text    the sender
//	a binary message, also an empty one    the same bytes   the sender
package main

import "rooms/stateroom"

type echo struct{ stateroom.Quiet }

func (echo) Text(client int32, text string) { stateroom.SendText(client, text) }

func (echo) Binary(client int32, message []byte) { stateroom.SendBinary(client, message) }

func init() { stateroom.Serve(echo{}) }

// Never called: the module is a library. The linker wants one.
func main() {}
