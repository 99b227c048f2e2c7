//! Namespaces: what group 0 holds of each, and the rules of registering and changing them.
//!
//! `Command -> decide(&Registry, ..) -> RegistryChange -> apply`. A change is an absolute row, so
//! replicas write it without knowing what it means; [`Registry`] is the fold of those rows, on
//! every node. Only `decide` refuses.
//!
//! The reference's `temporal-system` does not exist: there is no work of ours in it. Its name is
//! taken all the same.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_proto::enums::{IndexedValueType, NamespaceState};
use holdfast_proto::errordetails::{NamespaceInvalidStateFailure, NamespaceNotFoundFailure};

use crate::ids::NamespaceId;
use crate::reject::{Code, Rejection};

pub mod attributes;
pub mod decide;
pub mod record;
pub mod registry;
pub mod show;
pub mod surface;

pub use decide::{Command, Outcome, decide, registration};
pub use record::{NamespaceRecord, RegistryChange, RowError, RowKind, TokenKey};
pub use registry::Registry;
pub use show::NamespacePage;

/// Retention of `default` in a development server.
pub const DEV_RETENTION: Duration = Duration::from_secs(24 * 3600);
/// Retention of `default` in a server for people.
pub const DEFAULT_RETENTION: Duration = Duration::from_secs(72 * 3600);
/// The namespace that exists from the first start on.
pub const DEFAULT_NAMESPACE: &str = "default";
/// The reference's own namespace; nobody may have or delete it.
pub const SYSTEM_NAMESPACE: &str = "temporal-system";

/// A namespace as decisions see it.
#[derive(Clone, PartialEq, Debug)]
pub struct NamespaceView {
    /// Its id.
    pub id: NamespaceId,
    /// Its name.
    pub name: String,
    /// Registered, deprecated or deleted.
    pub state: NamespaceState,
    /// How long closed runs are kept.
    pub retention: Duration,
    /// Custom search attributes and their types.
    pub search_attributes: BTreeMap<String, IndexedValueType>,
}

impl NamespaceView {
    /// Starts, signal-with-starts and the like: the namespace must be registered.
    pub fn admit_start(&self) -> Result<(), Rejection> {
        self.admit(&[NamespaceState::Registered])
    }

    /// Everything else on executions: it may be deprecated.
    pub fn admit_use(&self) -> Result<(), Rejection> {
        self.admit(&[NamespaceState::Registered, NamespaceState::Deprecated])
    }

    fn admit(&self, allowed: &[NamespaceState]) -> Result<(), Rejection> {
        if allowed.contains(&self.state) {
            return Ok(());
        }
        let must: Vec<&str> = allowed.iter().map(|state| state_name(*state)).collect();
        let (is, must) = (state_name(self.state), must.join(" or "));
        let text = format!("Namespace has invalid state: {is}. Must be {must}.");
        Err(Rejection::new(Code::FailedPrecondition, text).with(&NamespaceInvalidStateFailure {
            namespace: self.name.clone(),
            state: self.state.into(),
            allowed_states: allowed.iter().map(|state| (*state).into()).collect(),
        }))
    }
}

fn state_name(state: NamespaceState) -> &'static str {
    match state {
        NamespaceState::Unspecified => "Unspecified",
        NamespaceState::Registered => "Registered",
        NamespaceState::Deprecated => "Deprecated",
        NamespaceState::Deleted => "Deleted",
    }
}

/// The refusal of a request without a namespace.
pub fn not_set() -> Rejection {
    Rejection::invalid("Namespace not set on request.")
}

/// The refusal of a name or id that nothing has. On a follower's copy, confirm it by one read
/// index on group 0 first (A23).
pub fn not_found(name: &str) -> Rejection {
    Rejection::not_found(format!("Namespace {name} is not found."))
        .with(&NamespaceNotFoundFailure { namespace: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Uuid;

    #[test]
    fn a_state_admits_or_says_what_it_must_be() {
        let view = |state| NamespaceView {
            id: Uuid([1; 16]),
            name: "n".into(),
            state,
            retention: DEV_RETENTION,
            search_attributes: BTreeMap::new(),
        };
        assert!(view(NamespaceState::Registered).admit_start().is_ok());
        assert!(view(NamespaceState::Deprecated).admit_use().is_ok());
        let refusal = view(NamespaceState::Deprecated).admit_start().expect_err("refused");
        assert_eq!(refusal.code, Code::FailedPrecondition);
        let text = "Namespace has invalid state: Deprecated. Must be Registered.";
        assert_eq!(refusal.message, text);
        let refusal = view(NamespaceState::Deleted).admit_use().expect_err("refused");
        let text = "Namespace has invalid state: Deleted. Must be Registered or Deprecated.";
        assert_eq!(refusal.message, text);
    }
}
