//! Lists and counts of executions: the filter language, the order, pages and groups. Pure parts;
//! the shell scans each shard's rows in [`SortKey`] order and asks [`Query::matches`] for each.
//!
//! ```text
//! text -> lexer -> parser -> Node -> filter (types checked) -> Query -> matches(record)
//!                                                           -> Plan: where to look
//! ```

pub mod attribute;
pub mod error;
pub mod evaluate;
pub mod filter;
mod lexer;
pub mod literal;
pub mod parser;
pub mod plan;
pub mod record;
pub mod request;
#[cfg(test)]
mod testing;

pub use attribute::{Column, Kind};
pub use error::FilterError;
pub use filter::{Filter, Query};
pub use plan::Plan;
pub use record::{ListPage, SortKey, info};
pub use request::{Listing, Tally};
