//! Search attributes: the system's own, their types, and how a name in a query finds one.
//!
//! A name is looked up among the namespace's custom attributes, the system attributes, the alias
//! `ScheduleId`, the names with or without `Temporal` in front, and the reference's columns
//! (`Keyword01` ..), which exist here as names without values.

use std::fmt;

use holdfast_proto::enums::IndexedValueType;

use crate::namespace::NamespaceView;

/// The type of a search attribute; decides operators and literals.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Matched word by word, without regard to case.
    Text,
    /// A string, compared by bytes.
    Keyword,
    /// A 64-bit integer.
    Int,
    /// A 64-bit float.
    Double,
    /// True or false.
    Bool,
    /// A point in time, to the nanosecond.
    Datetime,
    /// A set of strings, matched by element.
    KeywordList,
}

impl Kind {
    /// Every type, in the order of Temporal's enum.
    pub const ALL: [Kind; 7] = [
        Kind::Text,
        Kind::Keyword,
        Kind::Int,
        Kind::Double,
        Kind::Bool,
        Kind::Datetime,
        Kind::KeywordList,
    ];

    /// Temporal's name of the type, as payload metadata and messages have it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Text => "Text",
            Kind::Keyword => "Keyword",
            Kind::Int => "Int",
            Kind::Double => "Double",
            Kind::Bool => "Bool",
            Kind::Datetime => "Datetime",
            Kind::KeywordList => "KeywordList",
        }
    }

    /// From Temporal's enum; `None` when unspecified.
    pub fn of(value: IndexedValueType) -> Option<Kind> {
        match value {
            IndexedValueType::Unspecified => None,
            IndexedValueType::Text => Some(Kind::Text),
            IndexedValueType::Keyword => Some(Kind::Keyword),
            IndexedValueType::Int => Some(Kind::Int),
            IndexedValueType::Double => Some(Kind::Double),
            IndexedValueType::Bool => Some(Kind::Bool),
            IndexedValueType::Datetime => Some(Kind::Datetime),
            IndexedValueType::KeywordList => Some(Kind::KeywordList),
        }
    }

    /// Temporal's enum.
    pub fn value_type(self) -> IndexedValueType {
        match self {
            Kind::Text => IndexedValueType::Text,
            Kind::Keyword => IndexedValueType::Keyword,
            Kind::Int => IndexedValueType::Int,
            Kind::Double => IndexedValueType::Double,
            Kind::Bool => IndexedValueType::Bool,
            Kind::Datetime => IndexedValueType::Datetime,
            Kind::KeywordList => IndexedValueType::KeywordList,
        }
    }

    /// How many custom attributes of this type a namespace may have.
    pub fn per_namespace(self) -> usize {
        match self {
            Kind::Keyword => 10,
            Kind::Text | Kind::Int | Kind::Double | Kind::Bool | Kind::Datetime => 3,
            Kind::KeywordList => 3,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A system attribute that is computed from the record's own fields.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Field {
    /// The workflow id.
    WorkflowId,
    /// The run id, in text form.
    RunId,
    /// The workflow type.
    WorkflowType,
    /// The status, compared by its number.
    Status,
    /// The workflow's task queue.
    TaskQueue,
    /// When the run started.
    StartTime,
    /// When its first task was or is due.
    ExecutionTime,
    /// When it closed; unset while open.
    CloseTime,
    /// Number of events; unset while open.
    HistoryLength,
    /// Bytes of events; unset while open.
    HistorySizeBytes,
    /// Number of state transitions; unset while open.
    StateTransitionCount,
    /// Nanoseconds from execution time to close; unset while open.
    ExecutionDuration,
    /// The parent's workflow id.
    ParentWorkflowId,
    /// The parent's run id.
    ParentRunId,
    /// The workflow id at the root of the tree of parents.
    RootWorkflowId,
    /// The run id at the root of the tree of parents.
    RootRunId,
}

/// Where the value of an attribute comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// A field of the record.
    Field(Field),
    /// The search attributes of the record, under this name.
    Stored(String),
    /// Nowhere: the name is known and never has a value.
    Unset,
}

/// A search attribute as a query names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Column {
    /// The name, as the query has it; messages repeat it.
    pub name: String,
    /// Its type.
    pub kind: Kind,
    /// Where its value is.
    pub source: Source,
}

/// The attribute that sets rows apart which are no workflows of the user (schedules, batches, ..).
pub const DIVISION: &str = "TemporalNamespaceDivision";

const FIELDS: [(&str, Kind, Field); 16] = [
    ("WorkflowId", Kind::Keyword, Field::WorkflowId),
    ("RunId", Kind::Keyword, Field::RunId),
    ("WorkflowType", Kind::Keyword, Field::WorkflowType),
    ("ExecutionStatus", Kind::Keyword, Field::Status),
    ("TaskQueue", Kind::Keyword, Field::TaskQueue),
    ("StartTime", Kind::Datetime, Field::StartTime),
    ("ExecutionTime", Kind::Datetime, Field::ExecutionTime),
    ("CloseTime", Kind::Datetime, Field::CloseTime),
    ("HistoryLength", Kind::Int, Field::HistoryLength),
    ("HistorySizeBytes", Kind::Int, Field::HistorySizeBytes),
    ("StateTransitionCount", Kind::Int, Field::StateTransitionCount),
    ("ExecutionDuration", Kind::Int, Field::ExecutionDuration),
    ("ParentWorkflowId", Kind::Keyword, Field::ParentWorkflowId),
    ("ParentRunId", Kind::Keyword, Field::ParentRunId),
    ("RootWorkflowId", Kind::Keyword, Field::RootWorkflowId),
    ("RootRunId", Kind::Keyword, Field::RootRunId),
];

/// Attributes of the system whose values stand among the search attributes of a run.
const PREDEFINED: [(&str, Kind); 17] = [
    ("BatcherNamespace", Kind::Keyword),
    ("BatcherUser", Kind::Keyword),
    ("BinaryChecksums", Kind::KeywordList),
    ("BuildIds", Kind::KeywordList),
    ("TemporalChangeVersion", Kind::KeywordList),
    ("TemporalExternalPayloadCount", Kind::Int),
    ("TemporalExternalPayloadSizeBytes", Kind::Int),
    (DIVISION, Kind::Keyword),
    ("TemporalPauseInfo", Kind::KeywordList),
    ("TemporalReportedProblems", Kind::KeywordList),
    ("TemporalSchedulePaused", Kind::Bool),
    ("TemporalScheduledById", Kind::Keyword),
    ("TemporalScheduledStartTime", Kind::Datetime),
    ("TemporalUsedWorkerDeploymentVersions", Kind::KeywordList),
    ("TemporalWorkerDeployment", Kind::Keyword),
    ("TemporalWorkerDeploymentVersion", Kind::Keyword),
    ("TemporalWorkflowVersioningBehavior", Kind::Keyword),
];

/// Every system attribute and its type, as ListSearchAttributes shows them.
pub fn system_attributes() -> impl Iterator<Item = (&'static str, Kind)> {
    FIELDS.iter().map(|(name, kind, _)| (*name, *kind)).chain(PREDEFINED)
}

/// The type of a system attribute.
pub fn system_kind(name: &str) -> Option<Kind> {
    system_attributes().find(|(known, _)| *known == name).map(|(_, kind)| kind)
}

/// Whether no custom attribute may have this name.
pub fn is_reserved(name: &str) -> bool {
    name.starts_with("Temporal")
        || matches!(name, "NamespaceId" | "Memo" | "MemoEncoding" | "VisibilityTaskKey")
        || system_kind(name).is_some()
}

/// The reference's columns, by type: `Keyword01` .. `Keyword10`, `Int01` .. `Int03`, ..
pub fn columns() -> impl Iterator<Item = (String, Kind)> {
    Kind::ALL.into_iter().flat_map(|kind| {
        (1..=kind.per_namespace()).map(move |n| (format!("{}{n:02}", kind.name()), kind))
    })
}

/// The type of one of [`columns`].
pub fn column_kind(name: &str) -> Option<Kind> {
    columns().find(|(known, _)| known == name).map(|(_, kind)| kind)
}

impl Column {
    /// What `name` means in `namespace`; `None` when nothing.
    pub fn resolve(name: &str, namespace: &NamespaceView) -> Option<Column> {
        let custom = namespace.search_attributes.get(name).copied().and_then(Kind::of);
        let (kind, source) = custom
            .map(|kind| (kind, Source::Stored(name.to_owned())))
            .or_else(|| system(name))
            .or_else(|| if name == "ScheduleId" { system("WorkflowId") } else { None })
            .or_else(|| system(&format!("Temporal{name}")))
            .or_else(|| name.strip_prefix("Temporal").and_then(system))
            .or_else(|| column_kind(name).map(|kind| (kind, Source::Unset)))?;
        Some(Column { name: name.to_owned(), kind, source })
    }

    /// Whether this is the status.
    pub fn is_status(&self) -> bool {
        self.source == Source::Field(Field::Status)
    }

    /// Whether this is the namespace division.
    pub fn is_division(&self) -> bool {
        matches!(&self.source, Source::Stored(name) if name == DIVISION)
    }
}

fn system(name: &str) -> Option<(Kind, Source)> {
    if let Some((_, kind, field)) = FIELDS.iter().find(|(known, ..)| *known == name) {
        return Some((*kind, Source::Field(*field)));
    }
    let kind = PREDEFINED.iter().find(|(known, _)| *known == name)?.1;
    Some((kind, Source::Stored(name.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::visibility::testing::view;

    #[test]
    fn names_resolve_in_the_order_of_the_reference() {
        let view = view();
        let kind = |name: &str| Column::resolve(name, &view).map(|column| column.kind);
        for (name, expected) in [
            ("CustomIntField", Some(Kind::Int)),
            ("WorkflowId", Some(Kind::Keyword)),
            ("ScheduleId", Some(Kind::Keyword)),
            ("ScheduledById", Some(Kind::Keyword)),
            ("ScheduledStartTime", Some(Kind::Datetime)),
            ("TemporalBuildIds", Some(Kind::KeywordList)),
            ("TemporalStartTime", Some(Kind::Datetime)),
            ("Keyword01", Some(Kind::Keyword)),
            ("Keyword11", None),
            ("workflowid", None),
            ("Temporal", None),
            ("NamespaceId", None),
            ("VersioningBehavior", None),
            ("TemporalLowCardinalityKeyword01", None),
            ("", None),
        ] {
            assert_eq!(kind(name), expected, "{name}");
        }
        // A custom attribute hides a system one of the same name.
        let mut hiding = view.clone();
        hiding.search_attributes.insert("Keyword01".into(), IndexedValueType::Int);
        let column = Column::resolve("Keyword01", &hiding).expect("known");
        assert_eq!(column.source, Source::Stored("Keyword01".into()));
    }

    #[test]
    fn reserved_names() {
        for name in ["WorkflowId", "BuildIds", "TemporalMine", "NamespaceId", "Memo"] {
            assert!(is_reserved(name), "{name}");
        }
        for name in ["Keyword01", "Grösse", "a`b", "1st"] {
            assert!(!is_reserved(name), "{name}");
        }
        assert_eq!(system_attributes().count(), 33);
    }
}
