//! The server from outside: gRPC calls against a real server on an ephemeral port, and the binary
//! as a process.

mod bad_input;
mod connections;
mod history;
mod namespaces;
mod polls;
mod process;
mod reflection;
mod support;
mod tokens;
mod workflows;
