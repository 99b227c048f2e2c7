//! A filter with its types checked: what a query means in one namespace.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::mem::discriminant;

use holdfast_proto::enums::WorkflowExecutionStatus as Status;

use super::attribute::{Column, Field, Kind, Source};
use super::error::FilterError;
use super::evaluate::order;
use super::literal::{format_time, parse_duration, parse_time};
use super::parser::{Node, Number, parse};
use crate::namespace::NamespaceView;

/// A condition on visibility records. Three-valued, as in SQL: a comparison with a missing value
/// is neither true nor false.
#[derive(Clone, PartialEq, Debug)]
pub enum Filter {
    /// All of them; of none: everything.
    All(Vec<Filter>),
    /// Any of them.
    Any(Vec<Filter>),
    /// The opposite.
    Not(Box<Filter>),
    /// A test of one attribute.
    Test(Column, Test),
}

/// A test of one attribute.
#[derive(Clone, PartialEq, Debug)]
pub enum Test {
    /// Whether it has no value.
    Null,
    /// Whether it has one.
    NotNull,
    /// A comparison of scalars; of a KeywordList, `=` and `!=` ask for an element.
    Compare(Comparison, Value),
    /// Whether it is one of these; of a KeywordList, whether an element is.
    In(Values),
    /// Whether it has a value that is none of these; a KeywordList may also have none.
    NotIn(Values),
    /// Between these, ends included.
    Between(Value, Value),
    /// Not between these.
    NotBetween(Value, Value),
    /// Begins so.
    Prefix(String),
    /// Has a value that does not begin so.
    NotPrefix(String),
    /// A Text that has any of these words.
    Words(BTreeSet<String>),
    /// A Text that has none of these words, or is missing.
    NotWords(BTreeSet<String>),
}

/// The literals behind an IN. There may be tens of thousands, and each is asked for with every run
/// that a list looks at: those of one type are kept in order and searched.
#[derive(Clone, PartialEq, Debug)]
pub struct Values {
    list: Vec<Value>,
    sorted: bool,
}

impl Values {
    /// Of these, in any order.
    pub fn new(mut list: Vec<Value>) -> Values {
        // Fractions have no total order, and are met by integers.
        let sorted = !list.iter().any(|value| matches!(value, Value::Real(_)))
            && list.windows(2).all(|two| discriminant(&two[0]) == discriminant(&two[1]));
        if sorted {
            list.sort_unstable_by(|a, b| order(a, b).unwrap_or(Ordering::Equal));
            list.dedup();
        }
        Values { list, sorted }
    }

    /// Whether one of them equals `found`.
    pub fn has(&self, found: &Value) -> bool {
        if self.sorted && self.list.first().map(discriminant) == Some(discriminant(found)) {
            let place = |value: &Value| order(value, found).unwrap_or(Ordering::Less);
            return self.list.binary_search_by(place).is_ok();
        }
        self.list.iter().any(|value| order(found, value) == Some(Ordering::Equal))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Value> {
        self.list.iter()
    }
}

/// A comparison.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// A literal, in the type of its attribute.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// Of a Keyword, or an element of a KeywordList.
    Text(String),
    /// Of an Int; the number of a status; nanoseconds of a duration.
    Int(i64),
    /// Of a Double, or of an Int that is compared with a fraction.
    Real(f64),
    /// Of a Datetime: nanoseconds from 1970.
    Time(i128),
    /// Of a Bool.
    Bool(bool),
}

/// A whole query.
#[derive(Clone, PartialEq, Debug)]
pub struct Query {
    /// Its condition.
    pub filter: Filter,
    /// What Count groups by. List takes the clause and does nothing with it.
    pub group_by: Option<Column>,
    /// Whether it names the namespace division, and so sees rows that are no workflows.
    pub names_division: bool,
}

impl Query {
    /// Reads a query as `namespace` understands it. An empty one means everything.
    pub fn parse(text: &str, namespace: &NamespaceView) -> Result<Query, FilterError> {
        let statement = parse(text)?;
        if statement.order_by {
            return Err(unsupported("'ORDER BY' clause"));
        }
        if statement.limit {
            return Err(unsupported("'LIMIT' clause"));
        }
        let mut checker = Checker { namespace, names_division: false };
        let filter = match &statement.filter {
            Some(node) => checker.filter(node)?,
            None => Filter::All(Vec::new()),
        };
        let group_by = match statement.group_by.as_slice() {
            [] => None,
            [node] => Some(checker.group_by(node)?),
            _ => return Err(unsupported("'GROUP BY' clause supports only a single field")),
        };
        Ok(Query { filter, group_by, names_division: checker.names_division })
    }
}

fn unsupported(text: impl Into<String>) -> FilterError {
    FilterError::Unsupported(text.into())
}

fn senseless(text: impl Into<String>) -> FilterError {
    FilterError::Expression(text.into())
}

/// The name of a node in messages, which are the reference's.
fn kind_of(node: &Node) -> &'static str {
    match node {
        Node::And(_) => "*sqlparser.AndExpr",
        Node::Or(_) => "*sqlparser.OrExpr",
        Node::Not(_) => "*sqlparser.NotExpr",
        Node::Paren(_) => "*sqlparser.ParenExpr",
        Node::Compare { .. } => "*sqlparser.ComparisonExpr",
        Node::Range { .. } => "*sqlparser.RangeCond",
        Node::Is { .. } => "*sqlparser.IsExpr",
        Node::Column(_) => "*sqlparser.ColName",
        Node::Text(_) | Node::Number(_) | Node::Raw(_) => "*sqlparser.SQLVal",
        Node::Bool(_) => "sqlparser.BoolVal",
        Node::Null => "*sqlparser.NullVal",
        Node::Tuple(_) => "sqlparser.ValTuple",
        Node::Signed(_) => "*sqlparser.UnaryExpr",
        Node::Other(kind) => kind,
    }
}

/// A literal before it has the type of its attribute.
#[derive(Clone, PartialEq, Debug)]
enum Literal {
    Text(String),
    Number(Number),
    Bool(bool),
}

impl Literal {
    fn of(node: &Node) -> Result<Literal, FilterError> {
        match node {
            Node::Text(text) => Ok(Literal::Text(text.clone())),
            Node::Number(number) => Ok(Literal::Number(*number)),
            Node::Bool(value) => Ok(Literal::Bool(*value)),
            Node::Raw(text) => Err(senseless(format!("unable to parse value \"{text}\""))),
            Node::Column(name) => Err(unsupported(format!(
                "column name on the right side of comparison expression (did you forget to quote \"{name}\"?)"
            ))),
            Node::Signed(text) => {
                Err(senseless(format!("unary operator not supported in \"{text}\"")))
            }
            Node::Other("*sqlparser.FuncExpr") => Err(unsupported("nested func")),
            other => Err(senseless(format!("unexpected value type {}", kind_of(other)))),
        }
    }

    /// As messages show it: the value, and its type in the reference's language.
    fn shown(&self) -> String {
        match self {
            Literal::Text(text) => format!("{text:?} (type: string)"),
            Literal::Number(Number::Int(n)) => format!("{n} (type: int64)"),
            Literal::Number(Number::Real(r)) => format!("{r} (type: float64)"),
            Literal::Bool(value) => format!("{value} (type: bool)"),
        }
    }

    fn typed(self, column: &Column) -> Result<Value, FilterError> {
        let wrong = |literal: &Literal| {
            let (name, kind, shown) = (&column.name, column.kind, literal.shown());
            let what = format!("invalid value type for search attribute {name} of type {kind}");
            senseless(format!("{what}: {shown}"))
        };
        if column.is_status() {
            return status(&self).unwrap_or_else(|| Err(wrong(&self)));
        }
        if column.source == Source::Field(Field::ExecutionDuration)
            && let Literal::Text(text) = &self
        {
            let invalid = "invalid duration value for search attribute";
            return parse_duration(text)
                .map(Value::Int)
                .ok_or_else(|| senseless(format!("{invalid} {}: {text}", column.name)));
        }
        match (column.kind, self) {
            (Kind::Keyword | Kind::KeywordList | Kind::Text, Literal::Text(t)) => {
                Ok(Value::Text(t))
            }
            (Kind::Int, Literal::Number(Number::Int(n))) => Ok(Value::Int(n)),
            (Kind::Int | Kind::Double, Literal::Number(Number::Real(r))) => Ok(Value::Real(r)),
            (Kind::Double, Literal::Number(Number::Int(n))) => Ok(Value::Real(n as f64)),
            (Kind::Bool, Literal::Bool(value)) => Ok(Value::Bool(value)),
            (Kind::Datetime, Literal::Number(Number::Int(n))) => Ok(Value::Time(i128::from(n))),
            (Kind::Datetime, Literal::Text(text)) => parse_time(&text)
                .map(Value::Time)
                .ok_or_else(|| senseless(format!("unable to parse datetime '{text}'"))),
            (_, other) => Err(wrong(&other)),
        }
    }
}

/// Names of the statuses in queries and in groups, by number.
pub const STATUS_NAMES: [&str; 9] = [
    "Unspecified",
    "Running",
    "Completed",
    "Failed",
    "Canceled",
    "Terminated",
    "ContinuedAsNew",
    "TimedOut",
    "Paused",
];

/// A status literal; `None` when its type is wrong.
fn status(literal: &Literal) -> Option<Result<Value, FilterError>> {
    match literal {
        Literal::Text(text) => Some(
            STATUS_NAMES
                .iter()
                .position(|name| name == text)
                .or_else(|| Status::from_str_name(text).map(|status| status as usize))
                .map(|number| Value::Int(number as i64))
                .ok_or_else(|| senseless(format!("invalid ExecutionStatus value '{text}'"))),
        ),
        Literal::Number(Number::Int(n)) if (0..STATUS_NAMES.len() as i64).contains(n) => {
            Some(Ok(Value::Int(*n)))
        }
        Literal::Number(Number::Int(n)) => {
            Some(Err(senseless(format!("invalid ExecutionStatus value {n}"))))
        }
        Literal::Number(Number::Real(_)) | Literal::Bool(_) => None,
    }
}

/// The words of a text: runs of letters and digits, in lower case.
pub(super) fn words(text: &str) -> BTreeSet<String> {
    text.to_lowercase()
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

struct Checker<'a> {
    namespace: &'a NamespaceView,
    names_division: bool,
}

impl Checker<'_> {
    fn filter(&mut self, node: &Node) -> Result<Filter, FilterError> {
        match node {
            Node::And(nodes) => Ok(Filter::All(self.filters(nodes)?)),
            Node::Or(nodes) => Ok(Filter::Any(self.filters(nodes)?)),
            Node::Not(node) => Ok(Filter::Not(Box::new(self.filter(node)?))),
            Node::Paren(node) => self.filter(node),
            Node::Compare { left, op, right } => {
                let column = self.column(left)?;
                let test = compare(&column, op, right)?;
                Ok(Filter::Test(column, test))
            }
            Node::Range { left, not, from, to } => {
                let column = self.column(left)?;
                let from = Literal::of(from)?.typed(&column)?;
                let to = Literal::of(to)?.typed(&column)?;
                if matches!(column.kind, Kind::Bool | Kind::KeywordList | Kind::Text) {
                    let (name, kind) = (&column.name, column.kind);
                    return Err(senseless(format!(
                        "cannot do range condition on search attribute '{name}' of type {kind}"
                    )));
                }
                let test = if *not { Test::NotBetween(from, to) } else { Test::Between(from, to) };
                Ok(Filter::Test(column, test))
            }
            Node::Is { left, not_null } => {
                let column = self.column(left)?;
                match not_null {
                    Some(true) => Ok(Filter::Test(column, Test::NotNull)),
                    Some(false) => Ok(Filter::Test(column, Test::Null)),
                    None => Err(senseless(
                        "'IS' operator can only be used as 'IS NULL' or 'IS NOT NULL'",
                    )),
                }
            }
            Node::Column(_) => Err(senseless("incomplete expression")),
            other => Err(unsupported(format!("expression of type {}", kind_of(other)))),
        }
    }

    fn filters(&mut self, nodes: &[Node]) -> Result<Vec<Filter>, FilterError> {
        nodes.iter().map(|node| self.filter(node)).collect()
    }

    fn column(&mut self, node: &Node) -> Result<Column, FilterError> {
        let Node::Column(name) = node else {
            let kind = kind_of(node);
            return Err(senseless(format!("must be a column name but was {kind}")));
        };
        let Some(column) = Column::resolve(name, self.namespace) else {
            // A keyword to the reference's parser, which so loses its capital.
            let is_keyword = name.eq_ignore_ascii_case("status");
            let shown = if is_keyword { name.to_lowercase() } else { name.clone() };
            return Err(FilterError::Attribute(shown));
        };
        self.names_division |= column.is_division();
        Ok(column)
    }

    fn group_by(&mut self, node: &Node) -> Result<Column, FilterError> {
        let column = self.column(node)?;
        if column.is_status() || column.is_division() {
            return Ok(column);
        }
        let clause = "'GROUP BY' clause is not supported for search attribute";
        Err(unsupported(format!("{clause} {}", column.name)))
    }
}

fn compare(column: &Column, op: &'static str, right: &Node) -> Result<Test, FilterError> {
    let nodes = match right {
        Node::Tuple(nodes) if op.ends_with("IN") => nodes.as_slice(),
        one => std::slice::from_ref(one),
    };
    let mut values = nodes
        .iter()
        .map(|node| Literal::of(node)?.typed(column))
        .collect::<Result<Vec<Value>, FilterError>>()?;
    match (column.kind, op) {
        (Kind::Text, "=" | "!=") => return text_test(column, op, &values),
        (Kind::Text, _) => {}
        (_, "IN") => return Ok(Test::In(Values::new(values))),
        (_, "NOT IN") => return Ok(Test::NotIn(Values::new(values))),
        (Kind::Keyword, "STARTS_WITH") => return Ok(Test::Prefix(prefix(values.pop()))),
        (Kind::Keyword, "NOT STARTS_WITH") => return Ok(Test::NotPrefix(prefix(values.pop()))),
        (Kind::KeywordList, op) if !matches!(op, "=" | "!=") => {}
        (_, op) => {
            let known = Comparison::ALL.into_iter().find(|known| known.sign() == op);
            if let (Some(comparison), Some(value)) = (known, values.pop()) {
                return Ok(Test::Compare(comparison, value));
            }
        }
    }
    let (name, kind) = (&column.name, column.kind);
    let what = format!("operator '{op}' not supported for {kind} type search attribute '{name}'");
    Err(unsupported(what))
}

/// What a prefix operator compares with; of a status, its name.
fn prefix(value: Option<Value>) -> String {
    match value {
        Some(Value::Text(text)) => text,
        Some(Value::Int(n)) => {
            usize::try_from(n).ok().and_then(|n| STATUS_NAMES.get(n)).copied().unwrap_or("").into()
        }
        _ => String::new(),
    }
}

fn text_test(column: &Column, op: &str, values: &[Value]) -> Result<Test, FilterError> {
    let words = match values {
        [Value::Text(text)] => words(text),
        _ => BTreeSet::new(),
    };
    if words.is_empty() {
        let what = "no tokens found filtering on Text type search attribute";
        return Err(senseless(format!("{what} {}", column.name)));
    }
    Ok(if op == "=" { Test::Words(words) } else { Test::NotWords(words) })
}

impl Comparison {
    const ALL: [Comparison; 6] = [
        Comparison::Equal,
        Comparison::NotEqual,
        Comparison::Less,
        Comparison::LessOrEqual,
        Comparison::Greater,
        Comparison::GreaterOrEqual,
    ];

    /// Its sign in a query.
    pub fn sign(self) -> &'static str {
        match self {
            Comparison::Equal => "=",
            Comparison::NotEqual => "!=",
            Comparison::Less => "<",
            Comparison::LessOrEqual => "<=",
            Comparison::Greater => ">",
            Comparison::GreaterOrEqual => ">=",
        }
    }
}

/// The query text of a filter; reading it gives the same filter.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Filter::All(parts) => joined(f, parts, "AND"),
            Filter::Any(parts) => joined(f, parts, "OR"),
            Filter::Not(inner) => write!(f, "NOT ({inner})"),
            Filter::Test(column, test) => {
                let name = format!("`{}`", column.name.replace('`', "``"));
                show_test(f, &name, test)
            }
        }
    }
}

fn joined(f: &mut fmt::Formatter<'_>, parts: &[Filter], word: &str) -> fmt::Result {
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            write!(f, " {word} ")?;
        }
        write!(f, "({part})")?;
    }
    Ok(())
}

fn show_test(f: &mut fmt::Formatter<'_>, name: &str, test: &Test) -> fmt::Result {
    let list = |values: &Values| values.iter().map(Value::to_string).collect::<Vec<_>>().join(", ");
    let text = |words: &BTreeSet<String>| {
        quoted(&words.iter().map(String::as_str).collect::<Vec<_>>().join(" "))
    };
    match test {
        Test::Null => write!(f, "{name} IS NULL"),
        Test::NotNull => write!(f, "{name} IS NOT NULL"),
        Test::Compare(op, value) => write!(f, "{name} {} {value}", op.sign()),
        Test::In(values) => write!(f, "{name} IN ({})", list(values)),
        Test::NotIn(values) => write!(f, "{name} NOT IN ({})", list(values)),
        Test::Between(from, to) => write!(f, "{name} BETWEEN {from} AND {to}"),
        Test::NotBetween(from, to) => write!(f, "{name} NOT BETWEEN {from} AND {to}"),
        Test::Prefix(prefix) => write!(f, "{name} STARTS_WITH {}", quoted(prefix)),
        Test::NotPrefix(prefix) => write!(f, "{name} NOT STARTS_WITH {}", quoted(prefix)),
        Test::Words(words) => write!(f, "{name} = {}", text(words)),
        Test::NotWords(words) => write!(f, "{name} != {}", text(words)),
    }
}

/// The literal in query text.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(text) => f.write_str(&quoted(text)),
            Value::Int(n) => write!(f, "{n}"),
            Value::Real(r) => write!(f, "{r:?}"),
            Value::Time(nanos) => f.write_str(&quoted(&format_time(*nanos))),
            Value::Bool(value) => write!(f, "{value}"),
        }
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::visibility::testing::view;
    use proptest::prelude::*;

    fn refusal(query: &str) -> String {
        Query::parse(query, &view()).expect_err(query).to_string()
    }

    /// conformance/golden/visibility/*.json: every refusal but the places of syntax errors.
    #[test]
    fn refusals_in_the_words_of_the_reference() {
        let goldens = include_str!("refusals.txt");
        let mut count = 0;
        for line in goldens.lines().filter(|line| !line.starts_with('#')) {
            let (query, expected) = line.split_once(" => ").expect(line);
            assert_eq!(refusal(query), expected, "{query}");
            count += 1;
        }
        assert!(count > 70, "{count}");
    }

    #[test]
    fn what_the_reference_accepts() {
        let column = |name: &str| format!("{name} = 'x'");
        let mut queries: Vec<String> = [
            "",
            "  ",
            "\n",
            "WorkflowId = 'a' -- comment",
            "WorkflowId = 'a' /* c */",
            "WorkflowId = 'a' HAVING 1 = 1",
            "HistoryLength = - 1",
            "HistoryLength = +1",
            "WorkflowId = 'a'\nAND RunId = 'b'",
            "ScheduledStartTime > 0",
            "SchedulePaused = true",
            "CustomIntField > 1.5",
            "CustomIntField = 9223372036854775808",
            "ExecutionDuration < '01:00:00'",
            "WorkflowType = 'x' GROUP BY ExecutionStatus",
            "GROUP BY TemporalNamespaceDivision",
            "CustomBoolField > false",
            "TemporalExternalPayloadCount > 0",
            "StartTime > '9999-12-31T23:59:59Z'",
            "`WorkflowId` = \"it's\"",
            "not CustomIntField in (1, 2) and CustomBoolField is not null",
        ]
        .map(str::to_owned)
        .into();
        queries.extend(
            ["Keyword01", "ScheduleId", "NamespaceDivision", "TemporalBuildIds", "BatcherUser"]
                .map(column),
        );
        for query in queries {
            assert!(Query::parse(&query, &view()).is_ok(), "{query}");
        }
    }

    #[test]
    fn a_query_knows_whether_it_names_the_division() {
        for (query, names) in [
            ("TemporalNamespaceDivision IS NULL", true),
            ("WorkflowId = 'a' OR NOT NamespaceDivision = 'x'", true),
            ("GROUP BY TemporalNamespaceDivision", true),
            ("WorkflowId = 'TemporalNamespaceDivision'", false),
        ] {
            let parsed = Query::parse(query, &view()).expect(query);
            assert_eq!(parsed.names_division, names, "{query}");
        }
    }

    fn values(kind: Kind) -> BoxedStrategy<Value> {
        let second = 1_000_000_000i128;
        match kind {
            Kind::Int => any::<i64>().prop_map(Value::Int).boxed(),
            Kind::Double => {
                let finite = any::<f64>().prop_filter("finite", |r| r.is_finite());
                finite.prop_map(Value::Real).boxed()
            }
            Kind::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
            Kind::Datetime => {
                (-62_135_596_800 * second..253_402_300_800 * second).prop_map(Value::Time).boxed()
            }
            Kind::Text | Kind::Keyword | Kind::KeywordList => {
                any::<String>().prop_map(Value::Text).boxed()
            }
        }
    }

    fn tests(kind: Kind) -> BoxedStrategy<Test> {
        let comparison = proptest::sample::select(Comparison::ALL.to_vec());
        let null = prop_oneof![Just(Test::Null), Just(Test::NotNull)];
        let many = || proptest::collection::vec(values(kind), 1..4);
        let many = || many().prop_map(Values::new);
        let sets = prop_oneof![many().prop_map(Test::In), many().prop_map(Test::NotIn)];
        let two = || (values(kind), values(kind));
        let between = prop_oneof![
            two().prop_map(|(a, b)| Test::Between(a, b)),
            two().prop_map(|(a, b)| Test::NotBetween(a, b)),
        ];
        let scalar = (comparison, values(kind)).prop_map(|(op, v)| Test::Compare(op, v));
        match kind {
            Kind::Text => {
                let words = proptest::collection::btree_set("[a-z0-9ü]{1,5}", 1..4);
                let words = (any::<bool>(), words);
                let words =
                    words.prop_map(|(not, w)| if not { Test::NotWords(w) } else { Test::Words(w) });
                prop_oneof![null, words].boxed()
            }
            Kind::KeywordList => prop_oneof![null, sets].boxed(),
            Kind::Bool => prop_oneof![null, sets, scalar].boxed(),
            Kind::Keyword => {
                let prefix = any::<(bool, String)>()
                    .prop_map(|(not, p)| if not { Test::NotPrefix(p) } else { Test::Prefix(p) });
                prop_oneof![null, sets, between, scalar, prefix].boxed()
            }
            Kind::Int | Kind::Double | Kind::Datetime => {
                prop_oneof![null, sets, between, scalar].boxed()
            }
        }
    }

    fn filters() -> impl Strategy<Value = Filter> {
        let kinds = proptest::sample::select(Kind::ALL.to_vec());
        let leaf = kinds.prop_flat_map(|kind| {
            let column = Column::resolve(&format!("Custom{kind}Field"), &view()).expect("known");
            tests(kind).prop_map(move |test| Filter::Test(column.clone(), test))
        });
        leaf.prop_recursive(4, 24, 4, |inner| {
            let many = || proptest::collection::vec(inner.clone(), 2..4);
            prop_oneof![
                many().prop_map(Filter::All),
                many().prop_map(Filter::Any),
                inner.prop_map(|filter| Filter::Not(Box::new(filter))),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_filter_is_read_as_written(filter in filters()) {
            let text = filter.to_string();
            let read = Query::parse(&text, &view()).map_err(|e| e.to_string());
            prop_assert_eq!(read.map(|query| query.filter), Ok(filter), "{}", text);
        }

        #[test]
        fn no_text_makes_the_parser_fall(text in "[a-zA-Z'\"`()=<>!&|,.0-9 \\-+*/\\\\]{0,60}") {
            let _ = Query::parse(&text, &view());
        }
    }
}
