//! Tests of the C interface through its functions.

mod header;
