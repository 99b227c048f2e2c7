//! The requests: what List, Scan, ListOpen, ListClosed and Count ask for, and their answers put
//! together from what the shards found.

use std::collections::BTreeMap;

use holdfast_proto::common::Payload;
use holdfast_proto::decoded;
use holdfast_proto::enums::WorkflowExecutionStatus as Status;
use holdfast_proto::filter::StartTimeFilter;
use holdfast_proto::workflowservice as rpc;

use super::attribute::{Column, Field, Kind, Source};
use super::evaluate::value;
use super::filter::{Comparison, Filter, Query, Test, Value};
use super::record::{ListPage, SortKey, status_name};
use crate::ids::NamespaceId;
use crate::namespace::NamespaceView;
use crate::reject::Rejection;
use crate::rows::VisibilityRecord;

/// The greatest page, and the one that is given when none or a senseless one is asked for
/// (`frontend.visibilityMaxPageSize`).
pub const MAX_PAGE: usize = 1000;

/// The refusal of a list or count without a namespace; other requests say it differently.
pub fn no_namespace() -> Rejection {
    Rejection::invalid("Namespace is empty.")
}

/// A list as it is asked of each shard: at most [`Listing::size`] rows that pass, in order,
/// behind [`Listing::after`].
#[derive(Clone, PartialEq, Debug)]
pub struct Listing {
    /// What passes.
    pub query: Query,
    /// Where the page begins: rows with a greater key.
    pub after: Option<SortKey>,
    /// How many rows the page holds.
    pub size: usize,
}

impl Listing {
    /// ListWorkflowExecutions and ScanWorkflowExecutions. `page` is the opened page token.
    pub fn list(
        query: &str,
        page_size: i32,
        page: Option<&ListPage>,
        namespace: &NamespaceView,
    ) -> Result<Listing, Rejection> {
        Listing::new(Query::parse(query, namespace)?, page_size, page, namespace.id)
    }

    /// ListOpenWorkflowExecutions.
    pub fn open(
        request: &rpc::ListOpenWorkflowExecutionsRequest,
        page: Option<&ListPage>,
        namespace: &NamespaceView,
    ) -> Result<Listing, Rejection> {
        use rpc::list_open_workflow_executions_request::Filters;
        let mut parts = vec![test("CloseTime", Field::CloseTime, Kind::Datetime, Test::Null)];
        started_within(request.start_time_filter.as_ref(), &mut parts)?;
        match &request.filters {
            Some(Filters::ExecutionFilter(filter)) => execution(filter, &mut parts),
            Some(Filters::TypeFilter(filter)) => parts.push(of_type(&filter.name)),
            None => {}
        }
        Listing::new(plain(parts), request.maximum_page_size, page, namespace.id)
    }

    /// ListClosedWorkflowExecutions.
    pub fn closed(
        request: &rpc::ListClosedWorkflowExecutionsRequest,
        page: Option<&ListPage>,
        namespace: &NamespaceView,
    ) -> Result<Listing, Rejection> {
        use rpc::list_closed_workflow_executions_request::Filters;
        let mut parts = vec![test("CloseTime", Field::CloseTime, Kind::Datetime, Test::NotNull)];
        started_within(request.start_time_filter.as_ref(), &mut parts)?;
        match &request.filters {
            Some(Filters::ExecutionFilter(filter)) => execution(filter, &mut parts),
            Some(Filters::TypeFilter(filter)) => parts.push(of_type(&filter.name)),
            Some(Filters::StatusFilter(filter)) => {
                if matches!(filter.status(), Status::Unspecified | Status::Running) {
                    let text = "StatusFilter must be specified and must be not Running.";
                    return Err(Rejection::invalid(text));
                }
                let wanted = Value::Int(i64::from(filter.status));
                let test_of = Test::Compare(Comparison::Equal, wanted);
                parts.push(test("ExecutionStatus", Field::Status, Kind::Keyword, test_of));
            }
            None => {}
        }
        Listing::new(plain(parts), request.maximum_page_size, page, namespace.id)
    }

    fn new(
        query: Query,
        page_size: i32,
        page: Option<&ListPage>,
        namespace: NamespaceId,
    ) -> Result<Listing, Rejection> {
        let after = match page {
            Some(page) => match page.after(namespace) {
                Some(after) => Some(after),
                None => return Err(Rejection::invalid("Invalid page token.")),
            },
            None => None,
        };
        let asked = usize::try_from(page_size).unwrap_or(0);
        let size = if (1..=MAX_PAGE).contains(&asked) { asked } else { MAX_PAGE };
        Ok(Listing { query, after, size })
    }

    /// Puts one page together from what the shards found, each at most [`Listing::size`] rows in
    /// order. A full page always has a token, so that an empty page may come last.
    pub fn merge(
        &self,
        found: impl IntoIterator<Item = VisibilityRecord>,
        namespace: NamespaceId,
    ) -> (Vec<VisibilityRecord>, Option<ListPage>) {
        let mut rows: Vec<(SortKey, VisibilityRecord)> =
            found.into_iter().map(|record| (SortKey::of(&record), record)).collect();
        rows.sort_by_key(|(key, _)| *key);
        rows.dedup_by_key(|(key, _)| *key);
        rows.truncate(self.size);
        let last = rows.last().filter(|_| rows.len() == self.size);
        let next = last.map(|(key, _)| ListPage::new(namespace, *key));
        (rows.into_iter().map(|(_, record)| record).collect(), next)
    }
}

/// A query that sees workflows only.
fn plain(parts: Vec<Filter>) -> Query {
    Query { filter: Filter::All(parts), group_by: None, names_division: false }
}

fn test(name: &str, field: Field, kind: Kind, test: Test) -> Filter {
    Filter::Test(Column { name: name.to_owned(), kind, source: Source::Field(field) }, test)
}

fn equals(name: &str, field: Field, text: &str) -> Filter {
    let wanted = Value::Text(text.to_owned());
    test(name, field, Kind::Keyword, Test::Compare(Comparison::Equal, wanted))
}

fn of_type(name: &str) -> Filter {
    equals("WorkflowType", Field::WorkflowType, name)
}

fn execution(filter: &holdfast_proto::filter::WorkflowExecutionFilter, parts: &mut Vec<Filter>) {
    parts.push(equals("WorkflowId", Field::WorkflowId, &filter.workflow_id));
    if !filter.run_id.is_empty() {
        parts.push(equals("RunId", Field::RunId, &filter.run_id));
    }
}

/// Both ends are included; a missing end is no limit.
fn started_within(
    filter: Option<&StartTimeFilter>,
    parts: &mut Vec<Filter>,
) -> Result<(), Rejection> {
    let nanos =
        |at: &prost_types::Timestamp| i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanos);
    let earliest = filter.and_then(|filter| filter.earliest_time.as_ref()).map(nanos);
    let latest = filter.and_then(|filter| filter.latest_time.as_ref()).map(nanos);
    if earliest.zip(latest).is_some_and(|(earliest, latest)| earliest > latest) {
        let text = "EarliestTime in StartTimeFilter should not be larger than LatestTime.";
        return Err(Rejection::invalid(text));
    }
    let ends = [(Comparison::GreaterOrEqual, earliest), (Comparison::LessOrEqual, latest)];
    for (op, end) in ends {
        if let Some(end) = end {
            let compare = Test::Compare(op, Value::Time(end));
            parts.push(test("StartTime", Field::StartTime, Kind::Datetime, compare));
        }
    }
    Ok(())
}

/// A count, as each shard makes it and as they add up.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// How many rows passed.
    pub count: i64,
    /// By group, when the query groups; `None` is the group of rows without a value.
    pub groups: BTreeMap<Option<String>, i64>,
}

impl Tally {
    /// Counts a row, if it passes.
    pub fn add(&mut self, query: &Query, record: &VisibilityRecord) {
        if !query.matches(record) {
            return;
        }
        self.count += 1;
        if let Some(column) = &query.group_by {
            *self.groups.entry(group(column, record)).or_default() += 1;
        }
    }

    /// Adds what another shard counted.
    pub fn merge(&mut self, other: Tally) {
        self.count += other.count;
        for (group, count) in other.groups {
            *self.groups.entry(group).or_default() += count;
        }
    }

    /// The answer of CountWorkflowExecutions.
    pub fn response(&self) -> rpc::CountWorkflowExecutionsResponse {
        use rpc::count_workflow_executions_response::AggregationGroup;
        let groups = self.groups.iter().map(|(name, count)| AggregationGroup {
            group_values: vec![group_value(name.as_deref())],
            count: *count,
        });
        rpc::CountWorkflowExecutionsResponse { count: self.count, groups: groups.collect() }
    }
}

fn group(column: &Column, record: &VisibilityRecord) -> Option<String> {
    value(column, record).into_iter().next().map(|value| match value {
        Value::Int(n) if column.is_status() => {
            status_name(i32::try_from(n).unwrap_or(0)).to_owned()
        }
        Value::Text(text) => text,
        other => other.to_string(),
    })
}

/// A group's value as SDKs read search attributes: JSON with its type beside it.
fn group_value(name: Option<&str>) -> Payload {
    let json = serde_json::Value::from(name).to_string();
    Payload::encode_from(&decoded::Payload {
        metadata: [("encoding", "json/plain"), ("type", Kind::Keyword.name())]
            .map(|(key, value)| (key.to_owned(), value.into()))
            .into(),
        data: json.into_bytes().into(),
        ..decoded::Payload::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::visibility::testing::{closed, open, view, with};
    use holdfast_proto::filter::{StatusFilter, WorkflowExecutionFilter, WorkflowTypeFilter};

    fn runs() -> Vec<VisibilityRecord> {
        (0..5).map(|n| open(&format!("w{n}"), n + 1)).collect()
    }

    fn ids(rows: &[VisibilityRecord]) -> String {
        rows.iter().map(|row| row.workflow_id.as_str()).collect::<Vec<_>>().join(" ")
    }

    /// All pages, with the rows dealt out to three shards that each give a page at most.
    fn walk(size: i32, rows: &[VisibilityRecord]) -> Vec<String> {
        let (mut pages, mut page) = (Vec::new(), None);
        loop {
            let listing = Listing::list("", size, page.as_ref(), &view()).expect("valid");
            let mut found = Vec::new();
            for shard in 0..3 {
                let mut of_shard: Vec<_> = rows.iter().skip(shard).step_by(3).cloned().collect();
                of_shard.retain(|row| listing.after.is_none_or(|after| SortKey::of(row) > after));
                of_shard.sort_by_key(SortKey::of);
                found.extend(of_shard.into_iter().take(listing.size));
            }
            let (shown, next) = listing.merge(found, view().id);
            pages.push(ids(&shown));
            match next {
                Some(next) => page = Some(next),
                None => return pages,
            }
        }
    }

    #[test]
    fn pages_hold_every_run_once_and_a_full_page_has_a_token() {
        // conformance/golden/visibility/paging.json
        assert_eq!(walk(2, &runs()), ["w4 w3", "w2 w1", "w0"]);
        assert_eq!(walk(5, &runs()), ["w4 w3 w2 w1 w0", ""]);
        assert_eq!(walk(1, &runs()).len(), 6);
        assert_eq!(walk(0, &runs()), ["w4 w3 w2 w1 w0"]);
        assert_eq!(walk(-1, &runs()), ["w4 w3 w2 w1 w0"]);
        assert_eq!(walk(1001, &runs()).len(), 1);
    }

    #[test]
    fn the_order_of_a_list() {
        // conformance/golden/visibility/default_order.json
        let rows = [
            open("open-1", 1),
            open("open-2", 2),
            closed("a", 3, 21),
            closed("b", 4, 20),
            closed("c", 5, 22),
            open("open-3", 9),
        ];
        assert_eq!(walk(0, &rows), ["open-3 open-2 open-1 c a b"]);
    }

    #[test]
    fn a_page_of_another_namespace_is_refused() {
        let page = ListPage::new(crate::ids::Uuid([9; 16]), SortKey::of(&open("a", 1)));
        assert!(Listing::list("", 1, Some(&page), &view()).is_err());
    }

    #[test]
    fn a_bad_query_is_refused_with_its_prefix() {
        let refusal = Listing::list("Nonsense = 1", 1, None, &view()).expect_err("refused");
        assert_eq!(refusal.message, "invalid query: invalid search attribute: Nonsense");
        assert_eq!(refusal.code, crate::reject::Code::InvalidArgument);
    }

    fn within(earliest: i64, latest: i64) -> Option<StartTimeFilter> {
        let at = |nanos| Some(prost_types::Timestamp { seconds: 0, nanos: nanos as i32 });
        Some(StartTimeFilter { earliest_time: at(earliest), latest_time: at(latest) })
    }

    #[test]
    fn open_and_closed_lists() {
        use rpc::list_closed_workflow_executions_request::Filters as Closed;
        use rpc::list_open_workflow_executions_request::Filters as Open;
        let rows = [open("open", 5), closed("closed", 6, 9)];
        let found = |listing: Listing| {
            let rows: Vec<_> = rows.iter().filter(|r| listing.query.matches(r)).cloned().collect();
            ids(&rows)
        };
        let opened = |filters, start_time_filter| {
            let request = rpc::ListOpenWorkflowExecutionsRequest {
                filters,
                start_time_filter,
                ..Default::default()
            };
            Listing::open(&request, None, &view())
        };
        let ended = |filters, start_time_filter| {
            let request = rpc::ListClosedWorkflowExecutionsRequest {
                filters,
                start_time_filter,
                ..Default::default()
            };
            Listing::closed(&request, None, &view())
        };
        let kind = WorkflowTypeFilter { name: "type".into() };
        let id =
            |id: &str| WorkflowExecutionFilter { workflow_id: id.into(), ..Default::default() };
        let status = |status: Status| Closed::StatusFilter(StatusFilter { status: status.into() });
        assert_eq!(
            opened(Some(Open::TypeFilter(kind.clone())), None).map(found),
            Ok("open".into())
        );
        assert_eq!(
            opened(Some(Open::ExecutionFilter(id("closed"))), None).map(found),
            Ok("".into())
        );
        assert_eq!(opened(None, within(1, 4)).map(found), Ok("".into()));
        assert_eq!(opened(None, within(5, 5)).map(found), Ok("open".into()));
        assert_eq!(
            ended(Some(Closed::TypeFilter(kind)), within(1, 6)).map(found),
            Ok("closed".into())
        );
        assert_eq!(ended(Some(status(Status::Completed)), None).map(found), Ok("closed".into()));
        assert_eq!(ended(Some(status(Status::Failed)), None).map(found), Ok("".into()));
        for refused in [opened(None, within(2, 1)), ended(None, within(2, 1))] {
            let text = "EarliestTime in StartTimeFilter should not be larger than LatestTime.";
            assert_eq!(refused.expect_err("refused").message, text);
        }
        let text = "StatusFilter must be specified and must be not Running.";
        assert_eq!(ended(Some(status(Status::Running)), None).expect_err("refused").message, text);
    }

    #[test]
    fn counts_and_groups_add_up_over_shards() {
        // conformance/golden/visibility/group_by_status.json
        let query = |text| Query::parse(text, &view()).expect("valid");
        let grouped = query("WorkflowType = 'type' GROUP BY ExecutionStatus");
        let mut total = Tally::default();
        for rows in [vec![open("a", 1), closed("b", 1, 2)], vec![open("c", 1)]] {
            let mut tally = Tally::default();
            rows.iter().for_each(|row| tally.add(&grouped, row));
            total.merge(tally);
        }
        let response = total.response();
        assert_eq!(response.count, 3);
        let group = |at: usize| {
            let payload = response.groups[at].group_values[0].decode().expect("payload");
            (payload.data, payload.metadata, response.groups[at].count)
        };
        assert_eq!(group(0).0, "\"Completed\"");
        assert_eq!(group(0).2, 1);
        assert_eq!((group(1).0, group(1).2), ("\"Running\"".into(), 2));
        assert_eq!(group(0).1["type"], "Keyword");
        assert_eq!(group(0).1["encoding"], "json/plain");

        let mut none = Tally::default();
        none.add(&query("WorkflowId = 'x' GROUP BY ExecutionStatus"), &open("a", 1));
        assert_eq!(none.response(), rpc::CountWorkflowExecutionsResponse::default());

        let by_division = query("GROUP BY TemporalNamespaceDivision");
        let mut tally = Tally::default();
        tally.add(&by_division, &open("a", 1));
        tally.add(&by_division, &with(open("s", 1), [("TemporalNamespaceDivision", "'x'")]));
        assert_eq!(tally.groups.len(), 2);
    }
}
