//! What may change the registry, and what each refuses, in the reference's words.

use bytes::Bytes;
use holdfast_proto::enums::NamespaceState;
use holdfast_proto::errordetails::NamespaceAlreadyExistsFailure;
use holdfast_proto::namespace::{NamespaceConfig, UpdateNamespaceInfo};
use holdfast_proto::operatorservice as op;
use holdfast_proto::workflowservice as rpc;
use prost::Message;
use prost_types::Duration;

use super::attributes::{self, MAX_NAME_BYTES};
use super::record::{BadBinary, NamespaceRecord, RegistryChange, TokenKey};
use super::registry::Registry;
use super::show::updated;
use super::surface::CLUSTER_NAME;
use super::{SYSTEM_NAMESPACE, not_found, not_set};
use crate::env::IdSource;
use crate::ids::{Hlc, NamespaceId, Uuid};
use crate::reject::{Code, Rejection};

/// Shortest retention, in nanoseconds.
pub const MIN_RETENTION: i64 = 3600 * 1_000_000_000;
/// Most namespaces.
pub const MAX_NAMESPACES: usize = 10_000;
/// Largest record of a namespace, in bytes.
pub const MAX_RECORD_BYTES: usize = 256 << 10;
/// Most token keys: the one that seals and those whose tokens may still be out.
pub const MAX_TOKEN_KEYS: usize = 4;
/// Fewest bytes of a secret.
pub const MIN_SECRET_BYTES: usize = 16;

/// What may change the registry.
#[derive(Clone, PartialEq, Debug)]
pub enum Command {
    /// RegisterNamespace.
    Register(Box<rpc::RegisterNamespaceRequest>),
    /// UpdateNamespace.
    Update(Box<rpc::UpdateNamespaceRequest>),
    /// DeprecateNamespace.
    Deprecate {
        /// Its name.
        namespace: String,
    },
    /// The first step of DeleteNamespace: it is marked and loses its name.
    Delete {
        /// Its name, or empty.
        namespace: String,
        /// Its id, or empty.
        id: String,
    },
    /// The last step of DeleteNamespace, when nothing of it is left in any shard.
    Forget {
        /// Its id.
        id: NamespaceId,
    },
    /// AddSearchAttributes.
    AddSearchAttributes(Box<op::AddSearchAttributesRequest>),
    /// RemoveSearchAttributes.
    RemoveSearchAttributes(Box<op::RemoveSearchAttributesRequest>),
    /// Gives the cluster its first token key; does nothing when it has one.
    InstallTokenKey {
        /// Random bytes, from the proposer's rng.
        secret: Bytes,
    },
    /// A new token key; the oldest goes when there are too many.
    RotateTokenKey {
        /// Random bytes, from the proposer's rng.
        secret: Bytes,
    },
}

/// What a command answers.
#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    /// Nothing to say beside "done".
    Done,
    /// The id of the new namespace.
    Registered(NamespaceId),
    /// The answer of UpdateNamespace.
    Updated(Box<rpc::UpdateNamespaceResponse>),
    /// The namespace that is to be emptied, and the name it has now.
    Deleted {
        /// Its id.
        id: NamespaceId,
        /// Its new name.
        name: String,
    },
}

type Decided = Result<(Outcome, Vec<RegistryChange>), Rejection>;

/// Decides a command. Nothing is changed before the changes are applied.
pub fn decide(registry: &Registry, command: Command, now: Hlc, ids: &IdSource) -> Decided {
    match command {
        Command::Register(request) => register(registry, *request, now, ids),
        Command::Update(request) => update(registry, &request, now),
        Command::Deprecate { namespace } => {
            let mut record = live(registry, &namespace)?;
            record.state = NamespaceState::Deprecated.into();
            put(Outcome::Done, &record)
        }
        Command::Delete { namespace, id } => delete(registry, &namespace, &id),
        Command::Forget { id } => forget(registry, id),
        Command::AddSearchAttributes(request) => {
            let mut record = attributes::namespace(registry, &request.namespace)?;
            attributes::add(&mut record, &request.search_attributes)?;
            put(Outcome::Done, &record)
        }
        Command::RemoveSearchAttributes(request) => {
            let mut record = attributes::namespace(registry, &request.namespace)?;
            attributes::remove(&mut record, &request.search_attributes)?;
            put(Outcome::Done, &record)
        }
        Command::InstallTokenKey { secret } if registry.sealing_key().is_none() => {
            add_key(registry, secret, now)
        }
        Command::InstallTokenKey { .. } => Ok((Outcome::Done, Vec::new())),
        Command::RotateTokenKey { secret } => add_key(registry, secret, now),
    }
}

/// The registration that the server itself makes at its first start.
pub fn registration(name: &str, retention: std::time::Duration) -> Command {
    let nanos = u64::try_from(retention.as_nanos()).unwrap_or(u64::MAX);
    Command::Register(Box::new(rpc::RegisterNamespaceRequest {
        namespace: name.to_owned(),
        workflow_execution_retention_period: Some(holdfast_proto::duration(nanos)),
        ..rpc::RegisterNamespaceRequest::default()
    }))
}

fn put(outcome: Outcome, record: &NamespaceRecord) -> Decided {
    if record.encoded_len() > MAX_RECORD_BYTES {
        return Err(Rejection::invalid("Namespace record size exceeds limit."));
    }
    Ok((outcome, vec![RegistryChange::put(record)]))
}

/// A namespace that is not deleted, for changing.
fn live(registry: &Registry, name: &str) -> Result<NamespaceRecord, Rejection> {
    let record = registry.record_by_name(name)?;
    record.view().admit_use()?;
    Ok(record.clone())
}

fn retention(period: Option<&Duration>) -> Result<u64, Rejection> {
    let nanos = period.and_then(|period| holdfast_proto::duration_nanos(period).ok());
    let valid = nanos.filter(|nanos| *nanos >= MIN_RETENTION);
    valid
        .and_then(|nanos| u64::try_from(nanos).ok())
        .ok_or_else(|| Rejection::invalid("A valid retention period is not set on request."))
}

fn register(
    registry: &Registry,
    request: rpc::RegisterNamespaceRequest,
    now: Hlc,
    ids: &IdSource,
) -> Decided {
    let name = request.namespace;
    if name.is_empty() {
        return Err(not_set());
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(Rejection::invalid("Namespace length exceeds limit."));
    }
    if request.is_global_namespace {
        return Err(Rejection::invalid("Cannot register global namespace when not enabled"));
    }
    let retention = retention(request.workflow_execution_retention_period.as_ref())?;
    only_here(&request.active_cluster_name, request.clusters.iter().map(|c| &c.cluster_name))?;
    if name == SYSTEM_NAMESPACE || registry.view_by_name(&name).is_some() {
        let text = format!("Namespace \"{name}\" already exists");
        return Err(
            Rejection::new(Code::AlreadyExists, text).with(&NamespaceAlreadyExistsFailure {})
        );
    }
    if registry.len() >= MAX_NAMESPACES {
        return Err(Rejection::new(Code::ResourceExhausted, "too many namespaces"));
    }
    let id = ids.uuid();
    let record = NamespaceRecord {
        id: id.0.to_vec(),
        name,
        state: NamespaceState::Registered.into(),
        description: request.description,
        owner_email: request.owner_email,
        data: request.data,
        retention,
        created_at: now.0,
        next_attribute: 1,
        ..NamespaceRecord::default()
    };
    put(Outcome::Registered(id), &record)
}

/// Other clusters are not built.
fn only_here<'a>(
    active: &'a str,
    clusters: impl Iterator<Item = &'a String>,
) -> Result<(), Rejection> {
    let mut named = clusters.map(String::as_str).chain([active]).filter(|name| !name.is_empty());
    match named.all(|name| name == CLUSTER_NAME) {
        true => Ok(()),
        false => Err(Rejection::unbuilt("replication to other clusters")),
    }
}

fn update(registry: &Registry, request: &rpc::UpdateNamespaceRequest, now: Hlc) -> Decided {
    let mut record = live(registry, &request.namespace)?;
    if request.promote_namespace {
        return Err(Rejection::invalid("Cannot promote namespace: global namespaces not enabled"));
    }
    if let Some(replication) = &request.replication_config {
        let clusters = replication.clusters.iter().map(|cluster| &cluster.cluster_name);
        only_here(&replication.active_cluster_name, clusters)?;
    }
    if let Some(info) = &request.update_info {
        update_info(&mut record, info)?;
    }
    if let Some(config) = &request.config {
        update_config(&mut record, config, now)?;
    }
    let unwanted = &request.delete_bad_binary;
    if !unwanted.is_empty() && record.bad_binaries.remove(unwanted).is_none() {
        let text = format!("Bad binary checksum {unwanted} doesn't exists.");
        return Err(Rejection::invalid(text));
    }
    put(Outcome::Updated(Box::new(updated(&record))), &record)
}

/// Texts replace when they are given; data is merged by key.
fn update_info(record: &mut NamespaceRecord, info: &UpdateNamespaceInfo) -> Result<(), Rejection> {
    if !info.description.is_empty() {
        record.description.clone_from(&info.description);
    }
    if !info.owner_email.is_empty() {
        record.owner_email.clone_from(&info.owner_email);
    }
    record.data.extend(info.data.clone());
    match (record.state(), info.state()) {
        (_, NamespaceState::Unspecified) => {}
        (is, wanted) if is == wanted => {}
        (NamespaceState::Registered, NamespaceState::Deprecated) => {
            record.state = NamespaceState::Deprecated.into();
        }
        // Also to DELETED, which the reference takes here and then never deletes.
        _ => return Err(Rejection::invalid("Invalid namespace state update.")),
    }
    Ok(())
}

/// Archival is not configured: asking for it changes nothing, as in the reference.
fn update_config(
    record: &mut NamespaceRecord,
    config: &NamespaceConfig,
    now: Hlc,
) -> Result<(), Rejection> {
    if let Some(period) = &config.workflow_execution_retention_ttl {
        record.retention = retention(Some(period))?;
    }
    if let Some(bad) = &config.bad_binaries {
        let stamped = bad.binaries.iter().map(|(checksum, info)| {
            let (reason, operator) = (info.reason.clone(), info.operator.clone());
            (checksum.clone(), BadBinary { reason, operator, created_at: now.0 })
        });
        record.bad_binaries = stamped.collect();
    }
    attributes::alias(record, &config.custom_search_attribute_aliases)
}

fn delete(registry: &Registry, namespace: &str, id: &str) -> Decided {
    let record = match (namespace.is_empty(), id.is_empty()) {
        (true, true) => return Err(not_set()),
        (false, false) => {
            let text = "Only one of namespace name or Id should be set on request.";
            return Err(Rejection::invalid(text));
        }
        (false, true) if namespace == SYSTEM_NAMESPACE => {
            let text = "unable to delete system namespace";
            return Err(Rejection::new(Code::FailedPrecondition, text));
        }
        (false, true) => registry.record_by_name(namespace)?,
        (true, false) => {
            Uuid::parse(id).and_then(|id| registry.record(id)).ok_or_else(|| not_found(id))?
        }
    };
    let mut record = record.clone();
    let id = record.namespace_id();
    if record.state() == NamespaceState::Deleted {
        return Ok((Outcome::Deleted { id, name: record.name }, Vec::new()));
    }
    // The shortest beginning of the id, from five on, that makes a free name.
    let text = id.to_string();
    let name = (5..=text.len())
        .map(|length| format!("{}-deleted-{}", record.name, &text[..length]))
        .find(|name| registry.view_by_name(name).is_none());
    let Some(name) = name else {
        return Err(Rejection::new(Code::Unavailable, "no free name for the deleted namespace"));
    };
    record.name.clone_from(&name);
    record.state = NamespaceState::Deleted.into();
    put(Outcome::Deleted { id, name }, &record)
}

fn forget(registry: &Registry, id: NamespaceId) -> Decided {
    match registry.record(id) {
        None => Ok((Outcome::Done, Vec::new())),
        Some(record) if record.state() == NamespaceState::Deleted => {
            Ok((Outcome::Done, vec![RegistryChange::delete(id)]))
        }
        Some(_) => Err(Rejection::new(Code::FailedPrecondition, "namespace is not deleted")),
    }
}

fn add_key(registry: &Registry, secret: Bytes, now: Hlc) -> Decided {
    if secret.len() < MIN_SECRET_BYTES {
        return Err(Rejection::invalid("the secret of a token key is too short"));
    }
    let number = registry.sealing_key().map_or(1, |key| key.number.saturating_add(1));
    let keys = registry.token_keys();
    let surplus = (keys.len() + 1).saturating_sub(MAX_TOKEN_KEYS);
    let old = keys.keys().take(surplus).map(|number| RegistryChange::delete_key(*number));
    let new = RegistryChange::put_key(&TokenKey { number, secret, created_at: now.0 });
    Ok((Outcome::Done, old.chain([new]).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::{DEFAULT_NAMESPACE, DEV_RETENTION, Registry};
    use holdfast_proto::namespace::{BadBinaries, BadBinaryInfo};
    use std::collections::BTreeMap;

    const DAY: i64 = 86_400;

    /// A registry, and what every change of it must keep true: rows alone rebuild it.
    struct Bench {
        registry: Registry,
        rows: BTreeMap<(super::super::RowKind, Bytes), Bytes>,
        ids: IdSource,
        now: u64,
    }

    impl Bench {
        fn new() -> Bench {
            let mut bench = Bench {
                registry: Registry::default(),
                rows: BTreeMap::new(),
                ids: IdSource::new(7),
                now: 0,
            };
            bench.run(registration(DEFAULT_NAMESPACE, DEV_RETENTION)).expect("first");
            bench
        }

        fn run(&mut self, command: Command) -> Result<Outcome, String> {
            self.now += 1;
            let (outcome, changes) = decide(&self.registry, command, Hlc(self.now), &self.ids)
                .map_err(|refusal| format!("{:?}: {}", refusal.code, refusal.message))?;
            for change in &changes {
                self.registry.apply(change).expect("readable");
                match change.value.clone() {
                    Some(value) => self.rows.insert((change.kind, change.key.clone()), value),
                    None => self.rows.remove(&(change.kind, change.key.clone())),
                };
            }
            let rows = self.rows.iter().map(|((kind, key), v)| (*kind, key.clone(), v.clone()));
            assert_eq!(Registry::load(rows).as_ref(), Ok(&self.registry));
            Ok(outcome)
        }

        fn update(
            &mut self,
            request: rpc::UpdateNamespaceRequest,
        ) -> Result<NamespaceRecord, String> {
            let name = request.namespace.clone();
            let outcome = self.run(Command::Update(Box::new(request)))?;
            let record = self.registry.record_by_name(&name).expect("there").clone();
            assert_eq!(outcome, Outcome::Updated(Box::new(updated(&record))));
            Ok(record)
        }

        fn config(&mut self, config: NamespaceConfig) -> Result<NamespaceRecord, String> {
            self.update(rpc::UpdateNamespaceRequest {
                namespace: DEFAULT_NAMESPACE.into(),
                config: Some(config),
                ..Default::default()
            })
        }

        fn info(&mut self, update_info: UpdateNamespaceInfo) -> Result<NamespaceRecord, String> {
            self.update(rpc::UpdateNamespaceRequest {
                namespace: DEFAULT_NAMESPACE.into(),
                update_info: Some(update_info),
                ..Default::default()
            })
        }

        fn add(&mut self, wanted: &[(&str, i32)]) -> Result<Outcome, String> {
            let wanted = wanted.iter().map(|(name, kind)| ((*name).to_owned(), *kind));
            self.run(Command::AddSearchAttributes(Box::new(op::AddSearchAttributesRequest {
                namespace: DEFAULT_NAMESPACE.into(),
                search_attributes: wanted.collect(),
            })))
        }

        fn remove(&mut self, unwanted: &[&str]) -> Result<Outcome, String> {
            self.run(Command::RemoveSearchAttributes(Box::new(op::RemoveSearchAttributesRequest {
                namespace: DEFAULT_NAMESPACE.into(),
                search_attributes: unwanted.iter().map(|name| (*name).to_owned()).collect(),
            })))
        }

        fn attributes(&self) -> Vec<String> {
            let view = self.registry.find(DEFAULT_NAMESPACE).expect("there");
            view.search_attributes.iter().map(|(name, kind)| format!("{name} {kind:?}")).collect()
        }
    }

    fn seconds(seconds: i64) -> Option<Duration> {
        Some(Duration { seconds, nanos: 0 })
    }

    fn refused(text: &str) -> Result<(), String> {
        Err(format!("InvalidArgument: {text}"))
    }

    #[test]
    fn registrations_that_are_refused() {
        // conformance/golden/namespace/register_invalid.json, register_twice.json
        let mut bench = Bench::new();
        let mut attempt = |namespace: &str, period, is_global_namespace| {
            let request = rpc::RegisterNamespaceRequest {
                namespace: namespace.into(),
                workflow_execution_retention_period: period,
                is_global_namespace,
                ..Default::default()
            };
            bench.run(Command::Register(Box::new(request))).map(|_| ())
        };
        assert_eq!(attempt("", seconds(DAY), false), refused("Namespace not set on request."));
        let long = "x".repeat(1001);
        assert_eq!(attempt(&long, seconds(DAY), false), refused("Namespace length exceeds limit."));
        let retention = refused("A valid retention period is not set on request.");
        for period in [None, seconds(60), seconds(-DAY), seconds(3599)] {
            assert_eq!(attempt("a", period, false), retention);
        }
        let global = refused("Cannot register global namespace when not enabled");
        assert_eq!(attempt("a", seconds(DAY), true), global);
        assert_eq!(attempt("a", seconds(3600), false), Ok(()));
        for taken in ["a", "temporal-system"] {
            let text = format!("AlreadyExists: Namespace \"{taken}\" already exists");
            assert_eq!(attempt(taken, seconds(DAY), false), Err(text));
        }
    }

    #[test]
    fn retention_rules() {
        // conformance/golden/namespace_more/retention_rules.json
        let mut bench = Bench::new();
        let mut set = |period| {
            let config =
                NamespaceConfig { workflow_execution_retention_ttl: period, ..Default::default() };
            bench.config(config).map(|record| record.retention)
        };
        let text = refused("A valid retention period is not set on request.").map(|()| 0);
        for period in [seconds(3599), seconds(0), seconds(-DAY)] {
            assert_eq!(set(period), text);
        }
        assert_eq!(
            set(Some(Duration { seconds: 5400, nanos: 500_000_000 })),
            Ok(5_400_500_000_000)
        );
        assert_eq!(set(seconds(36_500 * DAY)), Ok(3_153_600_000_000_000_000));
        assert_eq!(set(None), Ok(3_153_600_000_000_000_000), "not given, not changed");
    }

    #[test]
    fn texts_are_replaced_and_data_is_merged() {
        // conformance/golden/namespace_more/data_is_merged.json
        let mut bench = Bench::new();
        let data = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let first = UpdateNamespaceInfo {
            description: "d".into(),
            owner_email: "o".into(),
            data: data(&[("a", "1"), ("b", "2")]),
            ..Default::default()
        };
        bench.info(first).expect("taken");
        let second = UpdateNamespaceInfo { data: data(&[("a", "3")]), ..Default::default() };
        let record = bench.info(second).expect("taken");
        assert_eq!(record.data, data(&[("a", "3"), ("b", "2")]));
        let third = UpdateNamespaceInfo { data: data(&[("b", "")]), ..Default::default() };
        let record = bench.info(third).expect("taken");
        assert_eq!(record.data, data(&[("a", "3"), ("b", "")]));
        assert_eq!((record.description.as_str(), record.owner_email.as_str()), ("d", "o"));
    }

    #[test]
    fn a_namespace_is_deprecated_and_there_is_no_way_back() {
        // conformance/golden/namespace_more/states.json
        use NamespaceState::{Deleted, Deprecated, Registered};
        let mut bench = Bench::new();
        let mut to = |state: NamespaceState| {
            let info = UpdateNamespaceInfo { state: state.into(), ..Default::default() };
            bench.info(info).map(|record| record.state())
        };
        let no = refused("Invalid namespace state update.").map(|()| Registered);
        assert_eq!(to(Deleted), no);
        assert_eq!(to(Registered), Ok(Registered));
        assert_eq!(to(Deprecated), Ok(Deprecated));
        assert_eq!(to(Deprecated), Ok(Deprecated));
        assert_eq!(to(Registered), no);
        let mut bench = Bench::new();
        bench.run(Command::Deprecate { namespace: "default".into() }).expect("taken");
        let view = bench.registry.find("default").expect("there");
        assert!(view.admit_start().is_err() && view.admit_use().is_ok());
    }

    #[test]
    fn bad_binaries() {
        // conformance/golden/namespace_more/bad_binaries.json
        let mut bench = Bench::new();
        let config = |checksum: &str| {
            let info = BadBinaryInfo { reason: "broken".into(), ..Default::default() };
            let binaries = [(checksum.to_owned(), info)].into();
            NamespaceConfig { bad_binaries: Some(BadBinaries { binaries }), ..Default::default() }
        };
        bench.config(config("abc")).expect("taken");
        let record = bench.config(config("def")).expect("taken");
        assert_eq!(record.bad_binaries.keys().collect::<Vec<_>>(), ["def"]);
        assert_eq!(record.bad_binaries["def"].created_at, 3);
        let mut take_away = |checksum: &str| {
            let request = rpc::UpdateNamespaceRequest {
                namespace: "default".into(),
                delete_bad_binary: checksum.into(),
                ..Default::default()
            };
            bench.update(request).map(|record| record.bad_binaries.len())
        };
        let text = "Bad binary checksum xyz doesn't exists.";
        assert_eq!(take_away("xyz"), refused(text).map(|()| 0));
        assert_eq!(take_away("def"), Ok(0));
    }

    #[test]
    fn a_deleted_namespace_loses_its_name_and_keeps_its_id() {
        // conformance/golden/namespace/delete.json, namespace_more/delete_refused.json
        let mut bench = Bench::new();
        let delete = |bench: &mut Bench, namespace: &str, id: &str| {
            bench.run(Command::Delete { namespace: namespace.into(), id: id.into() })
        };
        let unknown = "11111111-2222-3333-4444-555555555555";
        for (name, id, text) in [
            ("temporal-system", "", "FailedPrecondition: unable to delete system namespace"),
            ("nobody", "", "NotFound: Namespace nobody is not found."),
            ("", unknown, "NotFound: Namespace 11111111-2222-3333-4444-555555555555 is not found."),
            ("", "", "InvalidArgument: Namespace not set on request."),
            (
                "a",
                "b",
                "InvalidArgument: Only one of namespace name or Id should be set on request.",
            ),
        ] {
            assert_eq!(delete(&mut bench, name, id), Err(text.to_owned()));
        }
        let id = bench.registry.find("default").expect("there").id;
        let name = format!("default-deleted-{}", &id.to_string()[..5]);
        let forget = Command::Forget { id };
        assert!(bench.run(forget.clone()).is_err(), "not deleted yet");
        let deleted = Ok(Outcome::Deleted { id, name: name.clone() });
        assert_eq!(delete(&mut bench, "default", ""), deleted);
        assert_eq!(delete(&mut bench, "", &id.to_string()), deleted, "again");
        let refusal = bench.registry.find("default").expect_err("gone");
        assert_eq!(refusal.message, "Namespace default is not found.");
        assert!(refusal.detail.is_some_and(|d| d.type_name.ends_with("NamespaceNotFoundFailure")));
        assert!(bench.registry.find(&name).expect("there").admit_use().is_err());
        // The name is free, also while the old one is being emptied.
        bench.run(registration("default", DEV_RETENTION)).expect("free");
        assert_ne!(bench.registry.find("default").expect("new").id, id);
        bench.run(forget.clone()).expect("taken");
        bench.run(forget).expect("again");
        assert_eq!(bench.registry.view(id), None);
        assert_eq!(bench.registry.len(), 1);
    }

    #[test]
    fn attributes_are_added_all_or_none() {
        // conformance/golden/search_attributes/add_refused.json, add_again.json
        let mut bench = Bench::new();
        for (wanted, text) in [
            (vec![("WorkflowId", 2)], "Search attribute WorkflowId is reserved by system."),
            (vec![("TemporalMine", 2)], "Search attribute TemporalMine is reserved by system."),
            (
                vec![("Good", 2), ("WorkflowType", 2)],
                "Search attribute WorkflowType is reserved by system.",
            ),
            (
                vec![("Mine", 0)],
                "Unable to create search attributes: cannot have more than 0 search attribute of type Unspecified.",
            ),
            (vec![("Mine", 99)], "Unknown search attribute type: 99."),
            (vec![], "SearchAttributes are not set on request."),
            (
                vec![("A", 3), ("B", 3), ("C", 3), ("D", 3)],
                "Unable to create search attributes: cannot have more than 3 search attribute of type Int.",
            ),
        ] {
            assert_eq!(bench.add(&wanted).map(|_| ()), refused(text));
        }
        assert!(bench.attributes().is_empty());
        for wanted in [("Mine", 2), ("Mine", 2), ("Mine", 3), ("", 2), ("a`b", 2), ("Keyword01", 2)]
        {
            assert_eq!(bench.add(&[wanted]), Ok(Outcome::Done));
        }
        assert_eq!(bench.attributes(), ["Keyword01 Keyword", "Mine Keyword", "a`b Keyword"]);
        for n in 3..10 {
            assert_eq!(bench.add(&[(&format!("K{n}"), 2)]), Ok(Outcome::Done));
        }
        let text = "Unable to create search attributes: cannot have more than 10 search attribute of type Keyword.";
        assert_eq!(bench.add(&[("K10", 2)]).map(|_| ()), refused(text));
    }

    #[test]
    fn a_removed_attribute_comes_back_under_a_new_id() {
        // conformance/golden/search_attributes/remove_refused.json, remove_and_add_again.json
        let mut bench = Bench::new();
        bench.add(&[("Kept", 3), ("Mine", 2)]).expect("taken");
        let id = |bench: &Bench| {
            let record = bench.registry.record_by_name("default").expect("there");
            record.attribute("Mine").map(|attribute| attribute.id)
        };
        let old = id(&bench).expect("there");
        for name in ["WorkflowId", "BuildIds"] {
            let text = format!("Unable to remove non-custom search attributes: {name}.");
            assert_eq!(bench.remove(&[name]).map(|_| ()), refused(&text));
        }
        let text = "SearchAttributes are not set on request.";
        assert_eq!(bench.remove(&[]).map(|_| ()), refused(text));
        assert_eq!(bench.remove(&["Mine", "Mine", "Nobody"]), Ok(Outcome::Done));
        assert_eq!(bench.attributes(), ["Kept Int"]);
        bench.add(&[("Mine", 5)]).expect("taken");
        assert_eq!(bench.attributes(), ["Kept Int", "Mine Bool"]);
        assert!(id(&bench).is_some_and(|new| new > old));
    }

    #[test]
    fn aliases_of_columns() {
        // conformance/golden/namespace_more/aliases.json
        let mut bench = Bench::new();
        let mut set = |column: &str, name: &str| {
            let aliases = [(column.to_owned(), name.to_owned())].into();
            let config =
                NamespaceConfig { custom_search_attribute_aliases: aliases, ..Default::default() };
            let record = bench.config(config)?;
            let pairs = record.attributes.iter().map(|a| format!("{}={}", a.column, a.name));
            Ok::<_, String>(pairs.collect::<Vec<_>>().join(" "))
        };
        assert_eq!(set("Int01", "Number"), Ok("Int01=Number".into()));
        let text = "Custom search attribute field name already allocated.";
        assert_eq!(set("Int01", "Other"), refused(text).map(|()| String::new()));
        assert_eq!(set("Int01", "Number"), Ok("Int01=Number".into()));
        assert_eq!(set("Int02", "Other"), Ok("Int01=Number Int02=Other".into()));
        assert_eq!(set("Int01", ""), Ok("Int02=Other".into()));
        assert_eq!(set("Int01", "Third"), Ok("Int01=Third Int02=Other".into()));
        for (column, name) in [("Int99", "X"), ("Int03", "Other"), ("Int03", "WorkflowId")] {
            assert!(set(column, name).is_err(), "{column}={name}");
        }
    }

    #[test]
    fn token_keys_are_installed_once_and_rotated() {
        let mut bench = Bench::new();
        let secret = |n: u8| Bytes::from(vec![n; 32]);
        assert!(
            bench.run(Command::InstallTokenKey { secret: Bytes::from_static(b"short") }).is_err()
        );
        for n in 1..3 {
            bench.run(Command::InstallTokenKey { secret: secret(n) }).expect("taken");
        }
        assert_eq!(bench.registry.sealing_key().map(|key| key.secret.clone()), Some(secret(1)));
        for n in 2..8 {
            bench.run(Command::RotateTokenKey { secret: secret(n) }).expect("taken");
            assert_eq!(bench.registry.sealing_key().map(|key| key.number), Some(u32::from(n)));
        }
        assert_eq!(bench.registry.token_keys().keys().collect::<Vec<_>>(), [&4, &5, &6, &7]);
    }

    #[test]
    fn limits_and_what_is_not_built() {
        let mut bench = Bench::new();
        let info =
            UpdateNamespaceInfo { description: "x".repeat(MAX_RECORD_BYTES), ..Default::default() };
        assert!(bench.info(info).is_err());
        let request = |promote_namespace, active_cluster_name: &str| rpc::UpdateNamespaceRequest {
            namespace: "default".into(),
            promote_namespace,
            replication_config: Some(holdfast_proto::replication::NamespaceReplicationConfig {
                active_cluster_name: active_cluster_name.into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        assert!(
            bench.update(request(true, "")).is_err_and(|text| text.starts_with("InvalidArgument"))
        );
        assert!(
            bench
                .update(request(false, "west"))
                .is_err_and(|text| text.starts_with("Unimplemented"))
        );
        assert!(bench.update(request(false, CLUSTER_NAME)).is_ok());
    }
}
