//! Markers: what a worker wants to find in history again. They change nothing else.

use holdfast_proto::command::RecordMarkerCommandAttributes;
use holdfast_proto::enums::WorkflowTaskFailedCause as Cause;
use holdfast_proto::history::MarkerRecordedEventAttributes;
use holdfast_proto::history::history_event::Attributes;
use prost::Message;

use crate::env::Env;
use crate::event::command_event;
use crate::input::Refusal;
use crate::live::Live;
use crate::workflow::CommandContext;

/// RecordMarker.
pub fn record(
    run: &mut Live,
    env: &Env<'_>,
    ctx: &CommandContext<'_>,
    attributes: &RecordMarkerCommandAttributes,
) -> Result<(), Refusal> {
    const BAD: Cause = Cause::BadRecordMarkerAttributes;
    let name = &attributes.marker_name;
    if name.is_empty() {
        return Err(Refusal::bad(BAD, "MarkerName is not set on RecordMarkerCommand."));
    }
    let (length, limit) = (name.len(), env.limits.id_bytes);
    if length > limit {
        return Err(Refusal::bad(
            BAD,
            format!(
                "MarkerName on RecordMarkerCommand exceeds length limit. \
                 Length={length} Limit={limit} MarkerName={name}"
            ),
        ));
    }
    let details: usize = attributes.details.iter().map(|(k, v)| k.len() + v.encoded_len()).sum();
    let header = attributes.header.as_ref().map_or(0, Message::encoded_len);
    let failure = attributes.failure.as_ref().map_or(0, Message::encoded_len);
    for (field, size) in [("Details", details), ("Header", header), ("Failure", failure)] {
        if size > env.limits.blob_bytes {
            let message = format!("RecordMarkerCommandAttributes.{field} exceeds size limit.");
            return Err(Refusal::too_large(BAD, message));
        }
    }
    let event = MarkerRecordedEventAttributes {
        marker_name: name.clone(),
        details: attributes.details.clone(),
        workflow_task_completed_event_id: ctx.completed,
        header: attributes.header.clone(),
        failure: attributes.failure.clone(),
    };
    let event = Attributes::MarkerRecordedEventAttributes(Box::new(event));
    run.event_full(command_event(env, ctx.command, event));
    Ok(())
}

#[cfg(test)]
mod tests {
    use holdfast_proto::command::command::Attributes as Body;
    use holdfast_proto::sdk::UserMetadata;

    use super::*;
    use crate::workflow::rig::{Rig, payloads, record_marker};

    #[test]
    fn is_kept_as_sent_and_causes_no_task() {
        let mut rig = Rig::start();
        let mut marker = record_marker("m");
        let note = UserMetadata::default();
        marker.user_metadata = Some(note.clone());
        let Some(Body::RecordMarkerCommandAttributes(body)) = &mut marker.attributes else {
            panic!()
        };
        body.details = [("data".to_owned(), payloads("1"))].into();
        let details = body.details.clone();
        rig.turn(vec![marker]).expect("recorded");
        assert_eq!(rig.types(4), ["5 MarkerRecorded"]);
        let Attributes::MarkerRecordedEventAttributes(event) = rig.event(5) else { panic!() };
        assert_eq!((event.marker_name.as_str(), event.details), ("m", details));
        assert_eq!(event.workflow_task_completed_event_id, 4);
        assert_eq!(rig.history()[4].user_metadata, Some(note));
    }

    #[test]
    fn refusals_as_in_the_golden() {
        // Golden marker/marker_invalid.
        let bad = "BadRecordMarkerAttributes: ";
        let mut rig = Rig::start();
        assert_eq!(
            rig.refused(vec![record_marker("")]),
            format!("{bad}MarkerName is not set on RecordMarkerCommand.")
        );
        let long = Rig::start().refused(vec![record_marker(&"x".repeat(1001))]);
        assert_eq!(long.len(), 1118);
        assert!(
            long.starts_with(&format!(
                "{bad}MarkerName on RecordMarkerCommand exceeds length limit."
            ))
        );
        let mut huge = record_marker("m");
        let Some(Body::RecordMarkerCommandAttributes(body)) = &mut huge.attributes else {
            panic!()
        };
        body.details = [("d".to_owned(), payloads(&"7".repeat(2 << 20)))].into();
        let mut rig = Rig::start();
        let text = rig.refused(vec![huge]);
        assert_eq!(text, format!("{bad}RecordMarkerCommandAttributes.Details exceeds size limit."));
        assert_eq!(rig.types(3), ["4 WorkflowTaskFailed", "5 WorkflowExecutionTerminated"]);
    }
}
