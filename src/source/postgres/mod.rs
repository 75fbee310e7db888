//! PostgreSQL, through its own client programs.

mod census;
mod filter;
mod lexer;
