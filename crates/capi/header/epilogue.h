// ==== Without std ================================================================================

// Only for the library built without `std`, where the program defines it: called when the library
// has failed, or its allocator has returned NULL. `message` is UTF-8, ended by a NUL. It must not
// return; what the library was doing cannot go on.
void stateroom_panic(const char *message, size_t length);

#ifdef __cplusplus
}
#endif

#endif
