//! Why a query is refused, in the reference's words.

use std::fmt;

use crate::reject::Rejection;

/// The refusal of a query.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FilterError {
    /// It is no SQL.
    Syntax {
        /// Where, as the reference counts.
        position: usize,
        /// The refused word; empty when it is none.
        near: String,
    },
    /// It is SQL that filters do not take.
    Unsupported(String),
    /// It is a filter that makes no sense.
    Expression(String),
    /// It names something that is no search attribute.
    Attribute(String),
    /// It nests deeper than allowed.
    TooDeep,
    /// It is longer than allowed.
    TooLong,
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FilterError::Syntax { position, near } => {
                write!(f, "malformed SQL query: syntax error at position {position}")?;
                if near.is_empty() { Ok(()) } else { write!(f, " near '{near}'") }
            }
            FilterError::Unsupported(text) => write!(f, "operation is not supported: {text}"),
            FilterError::Expression(text) => write!(f, "invalid expression: {text}"),
            FilterError::Attribute(name) => write!(f, "invalid search attribute: {name}"),
            FilterError::TooDeep => f.write_str("malformed SQL query: nested too deeply"),
            FilterError::TooLong => f.write_str("malformed SQL query: too long"),
        }
    }
}

impl From<FilterError> for Rejection {
    fn from(error: FilterError) -> Rejection {
        Rejection::invalid(format!("invalid query: {error}"))
    }
}
