//! The report of a run: one page that needs nothing else, to read, print and hand to an auditor.
//!
//! The page comes from a Handlebars template, ours or a user's; every text is escaped, and of Markdown only
//! what `markdown` makes of it is taken as it is, so nothing that a run says can become part of the page. It
//! proves nothing by itself: the bundle beside it does, and the page says how. Called by `piton report`.

mod content;
mod steps;
mod timeline;

use handlebars::Handlebars;

pub use content::{Content, Said, Sources};

/// Our own template.
pub const TEMPLATE: &str = include_str!("report.hbs");

/// A template that is of no use.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// It cannot be read as a template.
    #[error("it is no template: {0}")]
    Malformed(String),
    /// It asks for what a report does not have.
    #[error("it cannot be filled in: {0}; `docs/reference/report.md` lists what a report has")]
    Unknown(String),
}

/// The page.
///
/// # Errors
/// When the template cannot be read, or asks for what a report does not have.
pub fn render(template: &str, content: &Content) -> Result<String, TemplateError> {
    let mut registry = Handlebars::new();
    registry.set_strict_mode(true);
    registry
        .register_template_string("report", template)
        .map_err(|error| TemplateError::Malformed(error.to_string()))?;
    registry.render("report", content).map_err(|error| TemplateError::Unknown(error.to_string()))
}
