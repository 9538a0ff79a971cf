//! Log records by type: each is a struct with a fixed level, a fixed message and named fields, and says what it means.
//!
//! Every folder declares its records in a `records.rs` by [`records!`], which also yields their [`Folder`]; all of those
//! together are the page `docs/logs.md`.

use std::fmt::Write as _;

/// The records of one folder of the source.
#[derive(Debug, Clone, Copy)]
pub struct Folder {
    /// Its name, behind the crate's in the target of a record.
    pub name: &'static str,
    /// Its records.
    pub entries: &'static [Entry],
}

/// A record as it is declared.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Its name in the source.
    pub name: &'static str,
    /// Its level, in capitals.
    pub level: &'static str,
    /// Its message, which never changes.
    pub message: &'static str,
    /// The names of its fields.
    pub fields: &'static [&'static str],
    /// The lines of its doc comment: what it means, and after an empty one what to do.
    doc: &'static [&'static str],
}

impl Entry {
    /// For [`records!`].
    #[must_use]
    pub const fn new(
        [name, level, message]: [&'static str; 3],
        fields: &'static [&'static str],
        doc: &'static [&'static str],
    ) -> Self {
        Self { name, level, message, fields, doc }
    }

    /// What the record means.
    #[must_use]
    pub fn meaning(&self) -> String {
        joined(self.doc.iter().take_while(|line| !line.is_empty()))
    }

    /// What is to be done when it is seen; empty where there is nothing to do.
    #[must_use]
    pub fn remedy(&self) -> String {
        joined(self.doc.iter().skip_while(|line| !line.is_empty()))
    }
}

fn joined<'a>(lines: impl Iterator<Item = &'a &'static str>) -> String {
    lines.map(|line| line.trim()).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Declares log records. Each has its doc comment (what it means and, after an empty line, what to do), its level, its
/// name, its message, and fields of the form `name: type => how "name in the record"`, where `how` is `value` (a number,
/// a text or whether), `display`, `debug` or `cause` (an error with its sources). Each is written by its method `log`,
/// so it is one callsite however many places use it.
macro_rules! records {
    ($folder:literal; $($(#[doc = $doc:literal])+ $level:ident $name:ident $(<$life:lifetime>)? $message:literal $body:tt)+) => {
        /// The records of this folder.
        pub(crate) const RECORDS: $crate::telemetry::record::Folder = $crate::telemetry::record::Folder {
            name: $folder,
            entries: &[$(
                $crate::telemetry::record::Entry::new(
                    [stringify!($name), stringify!($level), $message],
                    $crate::telemetry::record::records!(@names $body),
                    &[$($doc),+],
                )
            ),+],
        };

        $($crate::telemetry::record::records! {
            @record $folder $(#[doc = $doc])+ $level $name [$(<$life>)?] $message $body
        })+
    };
    (@names ;) => { &[] };
    (@names { $($field:ident: $type:ty => $how:ident $key:literal,)+ }) => { &[$($key),+] };
    (@record $folder:literal $(#[doc = $doc:literal])+ $level:ident $name:ident [] $message:literal ;) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy)]
        pub(crate) struct $name;

        impl $name {
            /// Writes the record.
            pub(crate) fn log(self) {
                tracing::event!(
                    target: concat!("guest_connection_adapter::", $folder),
                    tracing::Level::$level,
                    $message
                );
            }
        }
    };
    (
        @record $folder:literal $(#[doc = $doc:literal])+ $level:ident $name:ident [$($life:tt)*] $message:literal
        { $($field:ident: $type:ty => $how:ident $key:literal,)+ }
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone)]
        pub(crate) struct $name $($life)* {
            $(pub(crate) $field: $type,)+
        }

        impl $($life)* $name $($life)* {
            /// Writes the record.
            pub(crate) fn log(self) {
                let Self { $($field),+ } = self;
                tracing::event!(
                    target: concat!("guest_connection_adapter::", $folder),
                    tracing::Level::$level,
                    { $($key = $crate::telemetry::record::records!(@field $how $field),)+ },
                    $message
                );
            }
        }
    };
    (@field value $field:ident) => { $field };
    (@field display $field:ident) => { tracing::field::display(&$field) };
    (@field debug $field:ident) => { tracing::field::debug(&$field) };
    (@field cause $field:ident) => { $field as &dyn std::error::Error };
}

pub(crate) use records;

/// The page `docs/logs.md`: every record of `folders`.
#[must_use]
pub fn page(folders: &[Folder]) -> String {
    let mut text = String::from(
        "# Log records\n\n\
         <!-- Made of the doc comments of src/*/records.rs; a test keeps it equal. To write it anew:\n     \
         UPDATE_DOCS=1 cargo test --test logs_doc the_page -->\n\n\
         Every record of the adapter's own, by the folder of the source that writes it. The target of a record is\n\
         `guest_connection_adapter::<folder>`, which `telemetry.log_filter` can name. Messages never change with what\n\
         they tell of; that is in the fields. What `WARN` and `ERROR` ask for is said with them; `INFO` and `DEBUG` ask for\n\
         nothing.\n\n\
         Every line has `timestamp`, `level`, `target`, `message` and `fields`, within a span `trace_id` and `span_id`, and\n\
         within the work on a command `command_id`; in text these are ` command=` and ` trace=` at the end. Libraries log too,\n\
         in the same form and never below `info`.\n\n\
         Of the warnings and errors of one place in the source at most `telemetry.log_repeats_max` are written in ten\n\
         seconds, and of what the export says of itself one a minute. How many were left out is the field `suppressed`: of the\n\
         next record of that place or, if none comes in time, of a record `records were left out` with their message in the\n\
         field `record`, before whichever record is written next and at the latest when the adapter stops. So what is\n\
         written and what is said to be left out are what happened. `adapter.log.records` counts the one by level, and\n\
         `adapter.log.suppressed` the other.\n",
    );
    for folder in folders {
        let _ = write!(text, "\n## `{}`\n\n", folder.name);
        text.push_str("| level | message | fields | meaning |\n| --- | --- | --- | --- |\n");
        for entry in folder.entries {
            let fields: Vec<_> = entry.fields.iter().map(|field| format!("`{field}`")).collect();
            let Entry { level, message, .. } = entry;
            let remedy = entry.remedy();
            let remedy = if remedy.is_empty() { remedy } else { format!(" **To do:** {remedy}") };
            let meaning = entry.meaning() + &remedy;
            let _ = writeln!(
                text,
                "| `{level}` | {message} | {} | {} |",
                fields.join(", "),
                meaning.replace('|', "\\|")
            );
        }
    }
    text
}
