//! From words to a tree: the WHERE part of a SELECT as the reference's SQL parser takes it, also
//! where it is no filter, so that what is refused is refused with the reference's words.
//!
//! Recursive descent, bounded in depth and length; chains of AND and OR do not nest.

use super::error::FilterError;
use super::lexer::{Lexeme, Token, lex};

/// Longest query, in bytes: what a call may have.
pub const MAX_QUERY_BYTES: usize = 4 << 20;
/// Most parentheses, NOTs and signs inside each other.
pub const MAX_DEPTH: usize = 100;
/// Most tokens: an IN of a hundred thousand values. The reference has no limit of its own.
pub const MAX_TOKENS: usize = 200_100;

/// Where the query begins in the statement that the reference makes of it.
const OFFSET: usize = 28;

/// A node of the tree. What is not supported is kept only as far as messages need it.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Node {
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    Paren(Box<Node>),
    Compare {
        left: Box<Node>,
        op: &'static str,
        right: Box<Node>,
    },
    Range {
        left: Box<Node>,
        not: bool,
        from: Box<Node>,
        to: Box<Node>,
    },
    /// IS NULL, IS NOT NULL; `None` for the other forms of IS.
    Is {
        left: Box<Node>,
        not_null: Option<bool>,
    },
    Column(String),
    Text(String),
    Number(Number),
    /// A literal that cannot be read, as written.
    Raw(String),
    Bool(bool),
    Null,
    Tuple(Vec<Node>),
    /// `-` or `+` or another sign before something that is no number, as written.
    Signed(String),
    /// Something that is never allowed, by the name that messages give it.
    Other(&'static str),
}

/// A number as a query has it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Number {
    Int(i64),
    Real(f64),
}

/// What a query consists of.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Statement {
    pub(super) filter: Option<Node>,
    pub(super) group_by: Vec<Node>,
    pub(super) order_by: bool,
    pub(super) limit: bool,
}

const RESERVED: [&str; 74] = [
    "add",
    "alter",
    "and",
    "as",
    "asc",
    "between",
    "binary",
    "by",
    "case",
    "collate",
    "convert",
    "create",
    "cross",
    "current_date",
    "current_time",
    "current_timestamp",
    "database",
    "default",
    "delete",
    "desc",
    "describe",
    "distinct",
    "div",
    "drop",
    "else",
    "end",
    "escape",
    "exists",
    "explain",
    "false",
    "for",
    "from",
    "group",
    "having",
    "if",
    "ignore",
    "in",
    "index",
    "inner",
    "insert",
    "interval",
    "into",
    "is",
    "join",
    "key",
    "left",
    "like",
    "limit",
    "lock",
    "match",
    "mod",
    "natural",
    "not",
    "null",
    "on",
    "or",
    "order",
    "outer",
    "regexp",
    "replace",
    "right",
    "rlike",
    "select",
    "set",
    "show",
    "starts_with",
    "table",
    "then",
    "true",
    "union",
    "update",
    "when",
    "where",
    "xor",
];

/// Reads a query.
pub(super) fn parse(query: &str) -> Result<Statement, FilterError> {
    if query.len() > MAX_QUERY_BYTES {
        return Err(FilterError::TooLong);
    }
    let tokens = lex(query);
    if tokens.len() > MAX_TOKENS {
        return Err(FilterError::TooLong);
    }
    Parser { tokens, at: 0, depth: 0, chained: 0, query }.statement()
}

struct Parser<'a> {
    tokens: Vec<Lexeme>,
    at: usize,
    depth: usize,
    /// How many `IS` stood behind another.
    chained: usize,
    query: &'a str,
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |lexeme| &lexeme.token)
    }

    fn advance(&mut self) {
        self.at += 1;
    }

    /// The refusal of the token at hand.
    fn refused(&self) -> FilterError {
        let end = self.tokens.get(self.at).map_or(self.query.len(), |lexeme| lexeme.end);
        let near = match self.peek() {
            Token::Word(word) => {
                let lower = word.to_lowercase();
                if RESERVED.contains(&lower.as_str()) { lower } else { word.clone() }
            }
            Token::Quoted(t) | Token::Text(t) | Token::Int(t) | Token::Real(t) => t.clone(),
            Token::Hex(t) | Token::Raw(t) | Token::Bad(t) => t.clone(),
            Token::Op(_) | Token::End => String::new(),
        };
        FilterError::Syntax { position: OFFSET + end, near }
    }

    fn is_op(&self, op: &str) -> bool {
        matches!(self.peek(), Token::Op(found) if *found == op)
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Token::Word(found) if found.eq_ignore_ascii_case(word))
    }

    fn accept_op(&mut self, op: &str) -> bool {
        let found = self.is_op(op);
        self.at += usize::from(found);
        found
    }

    fn accept(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        self.at += usize::from(found);
        found
    }

    fn expect_op(&mut self, op: &str) -> Result<(), FilterError> {
        if self.accept_op(op) { Ok(()) } else { Err(self.refused()) }
    }

    fn expect(&mut self, word: &str) -> Result<(), FilterError> {
        if self.accept(word) { Ok(()) } else { Err(self.refused()) }
    }

    fn statement(mut self) -> Result<Statement, FilterError> {
        let mut statement = Statement::default();
        if *self.peek() == Token::End {
            return Ok(statement);
        }
        if !self.is_word("group") && !self.is_word("order") {
            statement.filter = Some(self.expression()?);
        }
        if self.accept("group") {
            self.expect("by")?;
            statement.group_by = self.list()?;
        }
        if self.accept("having") {
            self.expression()?;
        }
        if self.accept("order") {
            self.expect("by")?;
            statement.order_by = true;
            loop {
                self.value()?;
                let _ = self.accept("asc") || self.accept("desc");
                if !self.accept_op(",") {
                    break;
                }
            }
        }
        if self.accept("limit") {
            statement.limit = true;
            self.list()?;
        }
        self.accept_op(";");
        if *self.peek() == Token::End { Ok(statement) } else { Err(self.refused()) }
    }

    fn list(&mut self) -> Result<Vec<Node>, FilterError> {
        let mut nodes = vec![self.expression()?];
        while self.accept_op(",") {
            nodes.push(self.expression()?);
        }
        Ok(nodes)
    }

    /// Runs `inner` one level deeper.
    fn deeper(
        &mut self,
        inner: impl FnOnce(&mut Self) -> Result<Node, FilterError>,
    ) -> Result<Node, FilterError> {
        if self.depth == MAX_DEPTH {
            return Err(FilterError::TooDeep);
        }
        self.depth += 1;
        let node = inner(self);
        self.depth -= 1;
        node
    }

    fn expression(&mut self) -> Result<Node, FilterError> {
        let mut nodes = vec![self.conjunction()?];
        while self.accept("or") || self.accept_op("||") {
            nodes.push(self.conjunction()?);
        }
        Ok(one_or(nodes, Node::Or))
    }

    fn conjunction(&mut self) -> Result<Node, FilterError> {
        let mut nodes = vec![self.negation()?];
        while self.accept("and") || self.accept_op("&&") {
            nodes.push(self.negation()?);
        }
        Ok(one_or(nodes, Node::And))
    }

    fn negation(&mut self) -> Result<Node, FilterError> {
        if self.accept("not") {
            return self.deeper(|p| Ok(Node::Not(Box::new(p.negation()?))));
        }
        let mut node = self.condition()?;
        let mut first = true;
        while self.accept("is") {
            // `a IS NULL IS NULL ..` nests without a parenthesis: counted over the whole query.
            self.chained += usize::from(!std::mem::take(&mut first));
            if self.chained > MAX_DEPTH {
                return Err(FilterError::TooDeep);
            }
            let not = self.accept("not");
            let not_null = if self.accept("null") {
                Some(not)
            } else if self.accept("true") || self.accept("false") {
                None
            } else {
                return Err(self.refused());
            };
            node = Node::Is { left: Box::new(node), not_null };
        }
        Ok(node)
    }

    fn condition(&mut self) -> Result<Node, FilterError> {
        let left = Box::new(self.value()?);
        for op in ["<=>", "=", "<=", ">=", "<>", "!=", "<", ">"] {
            if self.accept_op(op) {
                let op = if op == "<>" { "!=" } else { op };
                return Ok(Node::Compare { left, op, right: Box::new(self.value()?) });
            }
        }
        let not = self.is_word("not") && self.tokens.get(self.at + 1).is_some_and(is_condition);
        self.at += usize::from(not);
        if self.accept("in") {
            self.expect_op("(")?;
            let right = Box::new(self.deeper(Self::tuple)?);
            return Ok(Node::Compare { left, op: if not { "NOT IN" } else { "IN" }, right });
        }
        if self.accept("between") {
            let from = Box::new(self.value()?);
            self.expect("and")?;
            return Ok(Node::Range { left, not, from, to: Box::new(self.value()?) });
        }
        let op = if self.accept("starts_with") {
            if not { "NOT STARTS_WITH" } else { "STARTS_WITH" }
        } else if self.accept("like") {
            if not { "NOT LIKE" } else { "LIKE" }
        } else if self.accept("regexp") || self.accept("rlike") {
            if not { "NOT REGEXP" } else { "REGEXP" }
        } else {
            return Ok(*left);
        };
        let right = Box::new(self.value()?);
        if op.ends_with("LIKE") && self.accept("escape") {
            self.value()?;
        }
        Ok(Node::Compare { left, op, right })
    }

    /// Behind `IN (`.
    fn tuple(&mut self) -> Result<Node, FilterError> {
        if self.is_word("select") {
            return self.skip_to_closing().map(|()| Node::Other("*sqlparser.Subquery"));
        }
        let nodes = self.list()?;
        self.expect_op(")")?;
        Ok(Node::Tuple(nodes))
    }

    fn value(&mut self) -> Result<Node, FilterError> {
        let node = self.signed()?;
        let mut binary = false;
        while self.accept_arithmetic() {
            self.signed()?;
            binary = true;
        }
        Ok(if binary { Node::Other("*sqlparser.BinaryExpr") } else { node })
    }

    fn accept_arithmetic(&mut self) -> bool {
        ["+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>", "->", "->>"]
            .iter()
            .any(|op| self.accept_op(op))
            || self.accept("div")
            || self.accept("mod")
    }

    fn signed(&mut self) -> Result<Node, FilterError> {
        let start = self.tokens.get(self.at.wrapping_sub(1)).map_or(0, |lexeme| lexeme.end);
        if self.accept_op("!") || self.accept_op("~") || self.accept("binary") {
            self.deeper(Self::signed)?;
            return Ok(Node::Other("*sqlparser.UnaryExpr"));
        }
        let minus = self.accept_op("-");
        if !minus && !self.accept_op("+") {
            return self.primary();
        }
        match (self.deeper(Self::signed)?, minus) {
            (Node::Number(number), false) => Ok(Node::Number(number)),
            (Node::Number(number), true) => Ok(Node::Number(negated(number))),
            // The number right above the greatest is that only until its sign is known.
            _ => {
                let end = self.tokens.get(self.at.wrapping_sub(1)).map_or(0, |lexeme| lexeme.end);
                Ok(Node::Signed(self.query.get(start..end).unwrap_or("").trim().to_owned()))
            }
        }
    }

    fn primary(&mut self) -> Result<Node, FilterError> {
        let token = self.peek().clone();
        match token {
            Token::Text(text) => {
                self.advance();
                Ok(Node::Text(text))
            }
            Token::Int(digits) | Token::Real(digits) => {
                let number = number(&digits);
                self.advance();
                Ok(number.map_or(Node::Raw(digits), Node::Number))
            }
            Token::Hex(digits) => {
                self.advance();
                Ok(number(&digits).map_or(Node::Raw(digits), Node::Number))
            }
            Token::Raw(text) => {
                self.advance();
                Ok(Node::Raw(text))
            }
            Token::Op("(") => {
                self.advance();
                self.deeper(Self::parenthesis)
            }
            Token::Quoted(name) => {
                self.advance();
                self.column(name)
            }
            Token::Word(word) => self.word(word),
            Token::Op(_) | Token::End | Token::Bad(_) => Err(self.refused()),
        }
    }

    fn parenthesis(&mut self) -> Result<Node, FilterError> {
        if self.is_word("select") {
            return self.skip_to_closing().map(|()| Node::Other("*sqlparser.Subquery"));
        }
        let mut nodes = self.list()?;
        self.expect_op(")")?;
        match nodes.pop() {
            Some(node) if nodes.is_empty() => Ok(Node::Paren(Box::new(node))),
            Some(node) => {
                nodes.push(node);
                Ok(Node::Tuple(nodes))
            }
            None => Err(self.refused()),
        }
    }

    fn word(&mut self, word: String) -> Result<Node, FilterError> {
        let lower = word.to_ascii_lowercase();
        match lower.as_str() {
            "true" | "false" => {
                self.advance();
                Ok(Node::Bool(lower == "true"))
            }
            "null" => {
                self.advance();
                Ok(Node::Null)
            }
            "exists" => {
                self.advance();
                self.expect_op("(")?;
                if !self.is_word("select") {
                    return Err(self.refused());
                }
                self.skip_to_closing().map(|()| Node::Other("*sqlparser.ExistsExpr"))
            }
            "case" => {
                while !self.is_word("end") {
                    if *self.peek() == Token::End {
                        return Err(self.refused());
                    }
                    self.advance();
                }
                self.advance();
                Ok(Node::Other("*sqlparser.CaseExpr"))
            }
            reserved if RESERVED.contains(&reserved) => Err(self.refused()),
            _ => {
                self.advance();
                self.column(word)
            }
        }
    }

    /// Behind the first part of a name: more parts, or the arguments of a function.
    fn column(&mut self, mut name: String) -> Result<Node, FilterError> {
        if self.accept_op("(") {
            return self.skip_to_closing().map(|()| Node::Other("*sqlparser.FuncExpr"));
        }
        for _ in 0..2 {
            if !self.accept_op(".") {
                break;
            }
            match self.peek().clone() {
                Token::Word(part) | Token::Quoted(part) => {
                    self.advance();
                    name.push('.');
                    name += &part;
                }
                _ => return Err(self.refused()),
            }
        }
        Ok(Node::Column(name))
    }

    /// Skips to behind the parenthesis that closes the one just taken: what stands between is
    /// refused anyhow.
    fn skip_to_closing(&mut self) -> Result<(), FilterError> {
        let mut open = 1usize;
        while open > 0 {
            match self.peek() {
                Token::End | Token::Bad(_) => return Err(self.refused()),
                Token::Op("(") => open += 1,
                Token::Op(")") => open -= 1,
                _ => {}
            }
            self.advance();
        }
        Ok(())
    }
}

fn is_condition(lexeme: &Lexeme) -> bool {
    let Token::Word(word) = &lexeme.token else { return false };
    ["in", "between", "starts_with", "like", "regexp", "rlike"]
        .iter()
        .any(|known| word.eq_ignore_ascii_case(known))
}

fn one_or(mut nodes: Vec<Node>, many: impl FnOnce(Vec<Node>) -> Node) -> Node {
    match nodes.pop() {
        Some(node) if nodes.is_empty() => node,
        Some(node) => {
            nodes.push(node);
            many(nodes)
        }
        None => many(nodes),
    }
}

fn negated(number: Number) -> Number {
    match number {
        Number::Int(n) => n.checked_neg().map_or(Number::Real(-(n as f64)), Number::Int),
        // 2^63 is no i64, but its negation is.
        Number::Real(r) if r == -(i64::MIN as f64) => Number::Int(i64::MIN),
        Number::Real(r) => Number::Real(-r),
    }
}

/// Digits that do not fit an integer become a float; what is no finite number gives `None`.
fn number(digits: &str) -> Option<Number> {
    if let Ok(n) = digits.parse() {
        return Some(Number::Int(n));
    }
    digits.parse().ok().filter(|r: &f64| r.is_finite()).map(Number::Real)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(query: &str) -> String {
        parse(query).expect_err(query).to_string()
    }

    #[test]
    fn a_syntax_error_names_its_place() {
        // conformance/golden/visibility/syntax_error_places.json
        for (query, place) in [
            ("=", "29"),
            ("WorkflowId =", "40"),
            ("WorkflowId = 'a' OR", "47"),
            ("WorkflowId = 'a')", "45"),
            ("WHERE WorkflowId = 'a'", "33 near 'where'"),
            ("WorkflowId IN 'a'", "45 near 'a'"),
            ("WorkflowId = 'a' AND ()", "51"),
            ("WorkflowId = 'open", "46 near 'open'"),
        ] {
            let expected = format!("malformed SQL query: syntax error at position {place}");
            assert_eq!(refusal(query), expected, "{query}");
        }
    }

    #[test]
    fn binding_strength() {
        let three = |query| parse(query).expect(query).filter;
        assert_eq!(three("a = 1 OR b = 2 AND c = 3"), three("a = 1 or b = 2 && c = 3"));
        assert!(
            matches!(three("a = 1 OR b = 2 AND c = 3"), Some(Node::Or(parts)) if parts.len() == 2)
        );
        assert!(matches!(three("NOT a = 1 AND b = 2"), Some(Node::And(parts)) if parts.len() == 2));
        assert!(matches!(three("a = 1 AND b = 2 AND c = 3"), Some(Node::And(p)) if p.len() == 3));
        assert!(matches!(three("NOT a IS NULL"), Some(Node::Not(_))));
    }

    #[test]
    fn depth_and_length_are_limited() {
        let nested = |n: usize| format!("{}a = 1{}", "(".repeat(n), ")".repeat(n));
        assert!(parse(&nested(MAX_DEPTH)).is_ok());
        assert_eq!(parse(&nested(MAX_DEPTH + 1)), Err(FilterError::TooDeep));
        assert_eq!(parse(&nested(110_000)), Err(FilterError::TooLong));
        assert_eq!(parse(&format!("{}a = 1", "NOT ".repeat(101))), Err(FilterError::TooDeep));
        assert_eq!(parse(&format!("a = {}1", "- ".repeat(101))), Err(FilterError::TooDeep));
        let chain = |n: usize| format!("a{}", " IS NULL".repeat(n));
        assert!(parse(&chain(MAX_DEPTH)).is_ok());
        assert_eq!(parse(&chain(MAX_DEPTH + 2)), Err(FilterError::TooDeep));
        assert!(parse(&vec!["a IS NULL"; 1000].join(" OR ")).is_ok(), "side by side is not deep");
        assert_eq!(parse(&" ".repeat(MAX_QUERY_BYTES + 1)), Err(FilterError::TooLong));
        assert!(parse(&vec!["a = 1"; 5000].join(" OR ")).is_ok());
        let among = |n: usize| format!("a IN ({})", vec!["'a-workflow-id'"; n].join(", "));
        assert!(parse(&among(30_000)).is_ok() && parse(&among(100_000)).is_ok());
        assert_eq!(parse(&among(101_000)), Err(FilterError::TooLong));
    }

    #[test]
    fn numbers() {
        let right = |query| match parse(query).expect(query).filter {
            Some(Node::Compare { right, .. }) => *right,
            other => panic!("{other:?}"),
        };
        assert_eq!(right("a = -1"), Node::Number(Number::Int(-1)));
        assert_eq!(right("a = - 1.5"), Node::Number(Number::Real(-1.5)));
        assert_eq!(right("a = -9223372036854775808"), Node::Number(Number::Int(i64::MIN)));
        assert_eq!(right("a = 1e999"), Node::Raw("1e999".into()));
        assert_eq!(right("a = -(1)"), Node::Signed("-(1)".into()));
    }
}
