//! Everything Temporal means, as pure functions: no clock, randomness, IO, async or logging.
//!
//! ```text
//! decide(&mut Draft, Input, &Env) -> Result<Reply, Halt>    only on a shard's leader
//! apply(&mut State, &Change, &mut Dirty)                    wherever State is needed; total
//! rows::all(&State) -> RowSet                               deadline, backlog, visibility rows
//! target(&Input) -> Target                                  which run the shard loads first
//! ```
//!
//! Map: the nouns are `ids input change live id_record rows env reject token`; the entities are
//! the files of `workflow/`; `namespace` is the registry of group 0, `matching/` the arithmetic
//! that pairs pollers and tasks, `visibility/` the list filter; `validate` checks requests at the
//! door, `limits` holds the numbers.

pub mod change;
pub mod env;
pub mod event;
pub mod failure;
pub mod id_record;
pub mod ids;
pub mod input;
pub mod limits;
pub mod live;
pub mod matching;
pub mod namespace;
pub mod reject;
pub mod retry;
pub mod rows;
#[cfg(test)]
pub(crate) mod testing;
pub mod token;
pub mod validate;
pub mod visibility;
pub mod workflow;

pub use change::Change;
pub use env::{Env, IdSource};
pub use id_record::{IdRecord, RecordLive};
pub use input::{Halt, Input, Reply, Target};
pub use limits::Limits;
pub use live::{Draft, Live, Overlay};
pub use reject::{Code, Rejection};
pub use rows::{Dirty, RowSet};
pub use workflow::{State, decide, target};
