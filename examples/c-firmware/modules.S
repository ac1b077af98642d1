// The modules, as a part of the program.
.macro module name, file
  .balign 4
  .global \name\()_wasm, \name\()_wasm_end
\name\()_wasm:
  .incbin "\file"
\name\()_wasm_end:
.endm

.section .rodata
module chat, "../rooms/wasm/chat-rust-small.wasm"
module counter, "../rooms/wasm/counter-c.wasm"
module hostile, "../rooms/wasm/hostile-rust-small.wasm"
module sdk, "../rooms/wasm/chat-rust-0.4.wasm"

.section .note.GNU-stack, "", %progbits
