// Go takes a name without a dot for one of its own library.
module example.com/my-room

go 1.24
