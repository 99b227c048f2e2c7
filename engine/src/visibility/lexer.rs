//! The words of the list filter: SQL's, as the reference's parser reads them.

/// What a token is.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Token {
    /// A bare word: a name or, in any case of letters, a keyword.
    Word(String),
    /// A back-quoted name.
    Quoted(String),
    /// A string in single or double quotes, decoded.
    Text(String),
    /// Digits.
    Int(String),
    /// A number with a point or an exponent.
    Real(String),
    /// `X'..'`.
    Hex(String),
    /// A literal that no rule takes: `0x41`, `:v1`, `?`.
    Raw(String),
    /// An operator or a punctuation mark.
    Op(&'static str),
    /// The end.
    End,
    /// What is no token: an unfinished string or a stray character; the text is what `near` shows.
    Bad(String),
}

/// A token and where it ends, in bytes.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Lexeme {
    pub(super) token: Token,
    pub(super) end: usize,
}

/// Longest first, so that the first that fits is the right one.
const OPERATORS: [&str; 30] = [
    "<=>", "->>", "<<", ">>", "<=", ">=", "<>", "!=", "&&", "||", "->", "=", "<", ">", "!", "+",
    "-", "*", "/", "%", "&", "|", "^", "~", "(", ")", ",", ".", ";", ":",
];

/// Splits a query; the last token is [`Token::End`].
pub(super) fn lex(query: &str) -> Vec<Lexeme> {
    let mut lexer = Lexer { query, at: 0, binds: 0 };
    let mut out = Vec::new();
    loop {
        let token = lexer.next();
        let last = matches!(token, Token::End);
        out.push(Lexeme { token, end: lexer.at });
        if last {
            return out;
        }
    }
}

struct Lexer<'a> {
    query: &'a str,
    at: usize,
    binds: usize,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.query[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Takes characters while `keep` says so.
    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> String {
        let rest = self.rest();
        let length = rest.find(|c| !keep(c)).unwrap_or(rest.len());
        let taken = rest[..length].to_owned();
        self.at += length;
        taken
    }

    /// Takes everything up to and including `mark`; all there is when it does not come.
    fn skip_past(&mut self, mark: &str) {
        let rest = self.rest();
        self.at += rest.find(mark).map_or(rest.len(), |found| found + mark.len());
    }

    fn skip_blanks(&mut self) {
        loop {
            self.take_while(char::is_whitespace);
            if self.rest().starts_with("--") {
                self.skip_past("\n");
            } else if self.rest().starts_with("/*") {
                self.skip_past("*/");
            } else {
                return;
            }
        }
    }

    fn next(&mut self) -> Token {
        self.skip_blanks();
        let Some(first) = self.peek() else { return Token::End };
        let second = self.rest().chars().nth(1);
        match first {
            '\'' | '"' => self.string(first).map_or_else(Token::Bad, Token::Text),
            '`' => self.string('`').map_or_else(Token::Bad, Token::Quoted),
            'x' | 'X' if second == Some('\'') => {
                self.at += 1;
                self.string('\'').map_or_else(Token::Bad, Token::Hex)
            }
            '?' => {
                self.at += 1;
                self.binds += 1;
                Token::Raw(format!(":v{}", self.binds))
            }
            ':' if second.is_some_and(char::is_alphabetic) => {
                self.at += 1;
                Token::Raw(format!(":{}", self.take_while(is_word)))
            }
            '.' if second.is_some_and(|c| c.is_ascii_digit()) => self.number(),
            c if c.is_ascii_digit() => self.number(),
            c if is_word(c) => Token::Word(self.take_while(is_word)),
            _ => self.operator(first),
        }
    }

    fn operator(&mut self, first: char) -> Token {
        match OPERATORS.iter().find(|op| self.rest().starts_with(**op)) {
            Some(op) => {
                self.at += op.len();
                Token::Op(op)
            }
            None => {
                self.at += first.len_utf8();
                Token::Bad(String::new())
            }
        }
    }

    fn number(&mut self) -> Token {
        if self.rest().starts_with("0x") || self.rest().starts_with("0X") {
            return Token::Raw(self.take_while(|c| c.is_ascii_alphanumeric()));
        }
        let mut text = self.take_while(|c| c.is_ascii_digit());
        let mut real = false;
        if self.peek() == Some('.') {
            self.at += 1;
            text.push('.');
            text += &self.take_while(|c| c.is_ascii_digit());
            real = true;
        }
        let exponent = self.rest().strip_prefix(['e', 'E']).map(|rest| {
            rest.strip_prefix(['+', '-']).unwrap_or(rest).starts_with(|c: char| c.is_ascii_digit())
        });
        if exponent == Some(true) {
            text.push('e');
            self.at += 1;
            if let Some(sign @ ('+' | '-')) = self.peek() {
                text.push(sign);
                self.at += 1;
            }
            text += &self.take_while(|c| c.is_ascii_digit());
            real = true;
        }
        if real { Token::Real(text) } else { Token::Int(text) }
    }

    /// A quoted text. A doubled quote stands for one; a backslash takes the next character as it
    /// is, or as the control character it names, but not in names. `Err` is an unfinished one.
    fn string(&mut self, quote: char) -> Result<String, String> {
        let mut text = String::new();
        self.at += 1;
        while let Some(c) = self.peek() {
            self.at += c.len_utf8();
            if c == quote {
                if self.peek() != Some(quote) {
                    return Ok(text);
                }
                self.at += 1;
                text.push(quote);
            } else if c == '\\' && quote != '`' {
                let Some(escaped) = self.peek() else { break };
                self.at += escaped.len_utf8();
                text.push(unescaped(escaped));
            } else {
                text.push(c);
            }
        }
        Err(text)
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '@'
}

fn unescaped(c: char) -> char {
    match c {
        '0' => '\0',
        'b' => '\u{8}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'Z' => '\u{1a}',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(query: &str) -> Vec<Token> {
        lex(query).into_iter().map(|lexeme| lexeme.token).collect()
    }

    #[test]
    fn tokens_of_every_kind() {
        assert_eq!(
            tokens(r#"a.b <=> 'it''s' "\"x\n" `q``r` 1 .5 1e-3 0x41 X'41' ? :v1 && ! -- end"#),
            [
                Token::Word("a".into()),
                Token::Op("."),
                Token::Word("b".into()),
                Token::Op("<=>"),
                Token::Text("it's".into()),
                Token::Text("\"x\n".into()),
                Token::Quoted("q`r".into()),
                Token::Int("1".into()),
                Token::Real(".5".into()),
                Token::Real("1e-3".into()),
                Token::Raw("0x41".into()),
                Token::Hex("41".into()),
                Token::Raw(":v1".into()),
                Token::Raw(":v1".into()),
                Token::Op("&&"),
                Token::Op("!"),
                Token::End,
            ]
        );
        assert_eq!(tokens("'open"), [Token::Bad("open".into()), Token::End]);
        assert_eq!(tokens("a /* b */ c").len(), 3);
        assert_eq!(tokens("§"), [Token::Bad(String::new()), Token::End]);
    }

    #[test]
    fn a_token_knows_its_end() {
        let ends: Vec<usize> = lex("ab = 'c'").iter().map(|lexeme| lexeme.end).collect();
        assert_eq!(ends, [2, 4, 8, 8]);
    }
}
