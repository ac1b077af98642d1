// Rooms in Go. A package for each room, and one for the ABI.
module rooms

go 1.24
