//! The search attributes of a run, as the workflow changes them.

use holdfast_proto::command::UpsertWorkflowSearchAttributesCommandAttributes;
use holdfast_proto::common::SearchAttributes;
use holdfast_proto::enums::WorkflowTaskFailedCause as Cause;
use holdfast_proto::history::history_event::Attributes;
use holdfast_proto::history::{HistoryEvent, UpsertWorkflowSearchAttributesEventAttributes};

use super::properties::merge;
use crate::env::Env;
use crate::event::command_event;
use crate::input::Refusal;
use crate::live::Live;
use crate::rows::Dirty;
use crate::validate::search_attributes as check;
use crate::workflow::{CommandContext, State};

/// UpsertWorkflowSearchAttributes. The event carries the type of each attribute.
pub fn upsert(
    run: &mut Live,
    env: &Env<'_>,
    ctx: &CommandContext<'_>,
    attributes: &UpsertWorkflowSearchAttributesCommandAttributes,
) -> Result<(), Refusal> {
    const BAD: Cause = Cause::BadSearchAttributes;
    let upserted = attributes.search_attributes.as_ref().filter(|a| !a.indexed_fields.is_empty());
    let Some(mut upserted) = upserted.cloned() else {
        let message = "IndexedFields is not set on UpsertWorkflowSearchAttributesCommand.";
        return Err(Refusal::bad(BAD, message));
    };
    check::values(&mut upserted, env.namespace, env.limits)
        .map_err(|rejection| Refusal::bad(BAD, rejection.message))?;
    check::sizes(&upserted, env.limits)
        .map_err(|rejection| Refusal::too_large(BAD, rejection.message))?;
    let mut merged = run.state.info.search_attributes.clone();
    merge(&mut merged, upserted.indexed_fields.clone());
    check::sizes(&SearchAttributes { indexed_fields: merged }, env.limits)
        .map_err(|rejection| Refusal::too_large(BAD, rejection.message))?;
    let event = Attributes::UpsertWorkflowSearchAttributesEventAttributes(Box::new(
        UpsertWorkflowSearchAttributesEventAttributes {
            workflow_task_completed_event_id: ctx.completed,
            search_attributes: Some(upserted),
        },
    ));
    run.event_full(command_event(env, ctx.command, event));
    Ok(())
}

/// UPSERT_WORKFLOW_SEARCH_ATTRIBUTES.
pub fn upserted(
    state: &mut State,
    _event: &HistoryEvent,
    attributes: &UpsertWorkflowSearchAttributesEventAttributes,
    dirty: &mut Dirty,
) {
    let fields = attributes.search_attributes.as_ref().map(|a| a.indexed_fields.clone());
    merge(&mut state.info.search_attributes, fields.unwrap_or_default());
    dirty.visibility = true;
}

#[cfg(test)]
mod tests {
    use holdfast_proto::command::Command;
    use holdfast_proto::command::command::Attributes as Body;
    use holdfast_proto::common::Payload;
    use holdfast_proto::enums::CommandType;

    use super::*;
    use crate::testing::command;
    use crate::workflow::rig::Rig;

    fn upsert_of(fields: &[(&str, &str)]) -> Command {
        let fields = fields.iter().map(|(key, json)| ((*key).to_owned(), Payload::json(json)));
        let attributes = SearchAttributes { indexed_fields: fields.collect() };
        let body =
            UpsertWorkflowSearchAttributesCommandAttributes { search_attributes: Some(attributes) };
        command(
            CommandType::UpsertWorkflowSearchAttributes,
            Body::UpsertWorkflowSearchAttributesCommandAttributes(body),
        )
    }

    #[test]
    fn upserts_merge_and_carry_their_types() {
        // Goldens marker/upsert_search_attributes and upsert_deletes.
        let mut rig = Rig::start();
        let first = upsert_of(&[
            ("CustomIntField", "2"),
            ("CustomKeywordField", "\"x\""),
            ("CustomKeywordListField", "[\"a\"]"),
        ]);
        let second = upsert_of(&[
            ("CustomKeywordField", "null"),
            ("CustomKeywordListField", "[]"),
            ("BuildIds", "[\"x\"]"),
        ]);
        rig.turn(vec![first, second]).expect("upserted");
        let Attributes::UpsertWorkflowSearchAttributesEventAttributes(event) = rig.event(6) else {
            panic!()
        };
        let fields = event.search_attributes.expect("set").indexed_fields;
        let deleted = fields["CustomKeywordField"].decode().expect("decodes");
        assert_eq!(
            (&deleted.data[..], &deleted.metadata["type"][..]),
            (&b"null"[..], &b"Keyword"[..])
        );
        let left: Vec<_> = rig.state().info.search_attributes.keys().map(String::as_str).collect();
        assert_eq!(left, ["BuildIds", "CustomIntField"]);
        assert_eq!(rig.types(6), Vec::<String>::new());
    }

    #[test]
    fn refusals_as_in_the_golden() {
        // Golden marker/upsert_invalid.
        let long = format!("\"{}\"", "x".repeat(3000));
        for (fields, expected, last) in [
            (
                ("Unheard", "1"),
                "Namespace default has no mapping defined for search attribute Unheard",
                "",
            ),
            (
                ("CustomIntField", "\"seven\""),
                "invalid value for search attribute CustomIntField of type Int: seven",
                "",
            ),
            (
                ("WorkflowType", "\"x\""),
                "WorkflowType attribute can't be set in SearchAttributes",
                "",
            ),
            (
                ("CustomIntField", "{nonsense"),
                "invalid value for search attribute CustomIntField of type Int: value from <metadata:{key:\"encoding\" value:\"json/plain\"} data:\"{nonsense\">",
                "",
            ),
            (
                ("CustomDatetimeField", "\"tomorrow\""),
                "invalid value for search attribute CustomDatetimeField of type Datetime: tomorrow",
                "",
            ),
            (
                ("CustomKeywordField", &long),
                "search attribute CustomKeywordField value size 3002 exceeds size limit 2048",
                "5 WorkflowExecutionTerminated",
            ),
        ] {
            let mut rig = Rig::start();
            assert_eq!(
                rig.refused(vec![upsert_of(&[fields])]),
                format!("BadSearchAttributes: {expected}")
            );
            // The next task is attempt 2: no event.
            assert_eq!(rig.types(4).concat(), last);
        }
        let nothing = Rig::start().refused(vec![upsert_of(&[])]);
        assert_eq!(
            nothing,
            "BadSearchAttributes: IndexedFields is not set on UpsertWorkflowSearchAttributesCommand."
        );
    }

    #[test]
    fn the_merged_set_is_sized() {
        let mut rig = Rig::start();
        rig.world.limits.search_attributes_bytes = 60;
        let text = |n: usize| format!("\"{}\"", "x".repeat(n));
        // Each fits and so does one that replaces another; two together do not.
        rig.turn(vec![upsert_of(&[("CustomKeywordField", &text(38))])]).expect("fits");
        rig.signal();
        rig.turn(vec![upsert_of(&[("CustomKeywordField", &text(40))])]).expect("replaces");
        rig.signal();
        assert_eq!(
            rig.refused(vec![upsert_of(&[("CustomTextField", &text(10))])]),
            "BadSearchAttributes: total size of search attributes 87 exceeds size limit 60"
        );
        assert!(rig.types(0).concat().ends_with("WorkflowExecutionTerminated"));
    }
}
