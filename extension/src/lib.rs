//! Everything that touches the outside: osquery's Thrift socket, the terminal, configuration and processes.
