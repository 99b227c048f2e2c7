//! S2: when nobody calls any more a node holds nothing for anybody: no poll, no reader, no input, no
//! answer, no grant, and nothing that its tables do not have.

use std::collections::BTreeMap;

use holdfast_raft::census::Census;
use holdfast_raft::types::NodeId;

use super::Violation;

/// What nodes still hold when all callers have been gone for long. `None`: the node does not say.
pub fn left(nodes: &BTreeMap<NodeId, Option<Census>>) -> Vec<Violation> {
    let found = nodes.iter().flat_map(|(node, census)| {
        let texts: Vec<String> = match census {
            None => vec!["it does not say what it holds".to_owned()],
            Some(census) => census
                .counts()
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .map(|(name, count)| format!("nobody calls any more, and it holds {count} {name}"))
                .collect(),
        };
        texts.into_iter().map(move |text| Violation {
            rule: "S2",
            key: format!("node {node}"),
            text,
        })
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_for_nobody_is_named() {
        let left = |census| left(&[(2, census)].into()).into_iter().map(|it| it.text).collect();
        let said: Vec<String> = left(Some(Census::default()));
        assert_eq!(said, Vec::<String>::new());
        let said: Vec<String> = left(Some(Census { readers: 3, grants: 1, ..Census::default() }));
        assert_eq!(
            said,
            [
                "nobody calls any more, and it holds 1 grants",
                "nobody calls any more, and it holds 3 readers"
            ]
        );
        let said: Vec<String> = left(None);
        assert_eq!(said, ["it does not say what it holds"]);
    }
}
