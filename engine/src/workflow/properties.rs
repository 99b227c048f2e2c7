//! The memo of a run, as the workflow changes it.

use std::collections::BTreeMap;

use holdfast_proto::command::ModifyWorkflowPropertiesCommandAttributes;
use holdfast_proto::common::Payload;
use holdfast_proto::enums::WorkflowTaskFailedCause as Cause;
use holdfast_proto::history::history_event::Attributes;
use holdfast_proto::history::{HistoryEvent, WorkflowPropertiesModifiedEventAttributes};
use prost::Message;

use crate::env::Env;
use crate::event::command_event;
use crate::input::Refusal;
use crate::live::Live;
use crate::rows::Dirty;
use crate::validate::is_null;
use crate::workflow::{CommandContext, State};

/// ModifyWorkflowProperties.
pub fn modify(
    run: &mut Live,
    env: &Env<'_>,
    ctx: &CommandContext<'_>,
    attributes: &ModifyWorkflowPropertiesCommandAttributes,
) -> Result<(), Refusal> {
    const BAD: Cause = Cause::BadModifyWorkflowPropertiesAttributes;
    let upserted = attributes.upserted_memo.as_ref();
    let fields = upserted.and_then(|memo| memo.decode().ok()).map(|memo| memo.fields);
    let Some(fields) = fields.filter(|fields| !fields.is_empty()) else {
        let message = "UpsertedMemo.Fields is not set on ModifyWorkflowPropertiesCommand.";
        return Err(Refusal::bad(BAD, message));
    };
    let mut merged = run.state.info.memo.clone();
    merge(&mut merged, fields);
    let size: usize = merged.iter().map(|(key, value)| key.len() + value.encoded_len()).sum();
    let sent = upserted.map_or(0, Message::encoded_len);
    if size.max(sent) > env.limits.memo_bytes {
        let message = "ModifyWorkflowPropertiesCommandAttributes exceeds size limit.";
        return Err(Refusal::too_large(BAD, message));
    }
    let event = Attributes::WorkflowPropertiesModifiedEventAttributes(Box::new(
        WorkflowPropertiesModifiedEventAttributes {
            workflow_task_completed_event_id: ctx.completed,
            upserted_memo: attributes.upserted_memo.clone(),
        },
    ));
    run.event_full(command_event(env, ctx.command, event));
    Ok(())
}

/// Puts `changes` over `map`; null and the empty list delete a key.
pub(super) fn merge(map: &mut BTreeMap<String, Payload>, changes: BTreeMap<String, Payload>) {
    for (key, value) in changes {
        if is_null(&value) {
            map.remove(&key);
        } else {
            map.insert(key, value);
        }
    }
}

/// WORKFLOW_PROPERTIES_MODIFIED.
pub fn modified(
    state: &mut State,
    _event: &HistoryEvent,
    attributes: &WorkflowPropertiesModifiedEventAttributes,
    dirty: &mut Dirty,
) {
    let memo = attributes.upserted_memo.as_ref().and_then(|memo| memo.decode().ok());
    merge(&mut state.info.memo, memo.map(|memo| memo.fields).unwrap_or_default());
    dirty.visibility = true;
}

#[cfg(test)]
mod tests {
    use holdfast_proto::command::Command;
    use holdfast_proto::command::command::Attributes as Body;
    use holdfast_proto::common::Memo;
    use holdfast_proto::decoded;
    use holdfast_proto::enums::CommandType;

    use super::*;
    use crate::testing::command;
    use crate::workflow::rig::Rig;

    fn memo(fields: &[(&str, &str)]) -> Memo {
        let fields = fields.iter().map(|(key, json)| ((*key).to_owned(), Payload::json(json)));
        Memo::encode_from(&decoded::Memo { fields: fields.collect() })
    }

    fn modify_by(fields: &[(&str, &str)]) -> Command {
        let body = ModifyWorkflowPropertiesCommandAttributes { upserted_memo: Some(memo(fields)) };
        command(
            CommandType::ModifyWorkflowProperties,
            Body::ModifyWorkflowPropertiesCommandAttributes(body),
        )
    }

    #[test]
    fn changes_merge_and_null_deletes() {
        // Golden marker/modify_memo.
        let start = memo(&[("kept", "1"), ("changed", "\"old\""), ("deleted", "\"soon\"")]);
        let mut rig = Rig::start_with(|r| r.memo = Some(start));
        rig.turn(vec![
            modify_by(&[("changed", "\"new\""), ("added", "[1]")]),
            modify_by(&[("deleted", "null")]),
        ])
        .expect("modified");
        assert_eq!(rig.types(4), ["5 WorkflowPropertiesModified", "6 WorkflowPropertiesModified"]);
        let left: Vec<_> = rig.state().info.memo.keys().cloned().collect();
        assert_eq!(left, ["added", "changed", "kept"]);
        assert_eq!(rig.state().info.memo["changed"], Payload::json("\"new\""));
        let shown = rig.run().rows.visibility.clone().expect("visible").memo.expect("memo");
        assert_eq!(shown.decode().expect("decodes").fields.len(), 3);
    }

    #[test]
    fn refusals_as_in_the_golden() {
        // Golden marker/memo_invalid.
        let bad = "BadModifyWorkflowPropertiesAttributes: ";
        let nothing = Rig::start().refused(vec![modify_by(&[])]);
        assert_eq!(
            nothing,
            format!("{bad}UpsertedMemo.Fields is not set on ModifyWorkflowPropertiesCommand.")
        );
        let half = "7".repeat((1 << 20) + 100);
        let mut rig = Rig::start();
        // Each fits, both together do not.
        let text = rig.refused(vec![modify_by(&[("a", &half)]), modify_by(&[("b", &half)])]);
        assert_eq!(
            text,
            format!("{bad}ModifyWorkflowPropertiesCommandAttributes exceeds size limit.")
        );
        assert_eq!(rig.types(3), ["4 WorkflowTaskFailed", "5 WorkflowExecutionTerminated"]);
    }
}
