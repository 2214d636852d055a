//! Self subject reviews: everybody may do everything.

use http::Method;
use serde_json::json;

use crate::api::Answer;
use crate::crud::body;
use crate::request::Request;
use crate::status::Refusal;

/// Answers reviews below `authorization.k8s.io/v1`, if the path is one of them.
///
/// # Errors
/// 405 for anything but POST, 400 for a body that does not parse.
pub fn answer(request: &Request, segments: &[&str]) -> Result<Option<Answer>, Refusal> {
    let ["apis", "authorization.k8s.io", "v1", review] = segments else {
        return Ok(None);
    };
    let status = match *review {
        "selfsubjectaccessreviews" => json!({"allowed": true}),
        "selfsubjectrulesreviews" => json!({
            "incomplete": false,
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        }),
        _ => return Ok(None),
    };
    if request.method != Method::POST {
        return Err(Refusal::method_not_allowed());
    }
    let mut review = body::decode(&request.media_type(), &request.body)?.value;
    review["status"] = status;
    Ok(Some(Answer::json(201, &review)))
}
