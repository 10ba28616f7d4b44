"""Which licences of checkpoints allow commercial use: one table, and the rule by which a licence is looked up.

This is a reading aid and no legal advice: read the licence itself before you sell anything. The data that a network was
trained on may have conditions of their own, which no licence of a checkpoint tells.
"""

from __future__ import annotations

YES, NO, UNKNOWN = "yes", "no", "unknown"

#: licence, as `normalise_licence` writes it -> may the checkpoint be used commercially? What is not here is unknown.
COMMERCIAL_USE: dict[str, str] = {
    # permissive: keep the notice
    "apache-2.0": YES,
    "mit": YES,
    "isc": YES,
    "bsd-2-clause": YES,
    "bsd-3-clause": YES,
    "0bsd": YES,
    "zlib": YES,
    "unlicense": YES,
    "cc0-1.0": YES,
    # name the author
    "cc-by-3.0": YES,
    "cc-by-4.0": YES,
    # what is derived must have the same licence, or its source must be given; selling is allowed
    "cc-by-sa-3.0": YES,
    "cc-by-sa-4.0": YES,
    "mpl-2.0": YES,
    # not for commercial use
    "cc-by-nc-3.0": NO,
    "cc-by-nc-4.0": NO,
    "cc-by-nc-nd-4.0": NO,
    "cc-by-nc-sa-3.0": NO,
    "cc-by-nc-sa-4.0": NO,
    "evaluation-only": NO,
    "research-only": NO,
    "non-commercial": NO,
    # nobody gave a permission, or none can be given
    "none": UNKNOWN,
    "none-stated": UNKNOWN,
    "not-stated": UNKNOWN,
}

#: remarks in brackets behind a licence that have been read, and change nothing about it
HARMLESS_REMARKS = (
    "as the Zenodo record states; code MIT",
    "Google's model; the npm package says MIT",
)


def normalise_licence(licence: str) -> tuple[str, str]:
    """Split a licence into its name, in the spelling of `COMMERCIAL_USE`, and the remark in brackets behind it.

    Args:
        licence: SPDX identifier or a short text, as the YAML of an encoder states it.

    Example:
        >>> normalise_licence("CC BY 4.0"), normalise_licence("BSD-3-Clause (of the code)")
        (('cc-by-4.0', ''), ('bsd-3-clause', 'of the code'))
    """
    name, _, remark = " ".join(licence.split()).partition("(")
    return "-".join(name.strip().lower().replace("-", " ").split()), remark.strip().removesuffix(")")


def allows_commercial_use(licence: str) -> str:
    """Say whether a checkpoint may be used commercially: "yes", "no" or "unknown".

    A licence is looked up by its name. A remark in brackets, such as "of the code; the weights have none of their own", may
    take back what the name allows: it makes a yes unknown, unless the remark is one of `HARMLESS_REMARKS`. A no stays no.

    Args:
        licence: as the YAML of an encoder states it; "" where nothing is known.

    Example:
        >>> [allows_commercial_use(one) for one in ("MIT", "CC-BY-NC-4.0 (README says CC BY)", "not stated (code MIT)")]
        ['yes', 'no', 'unknown']
        >>> allows_commercial_use("BSD-3-Clause (of the code; the weights have none of their own)")
        'unknown'
    """
    name, remark = normalise_licence(licence)
    found = COMMERCIAL_USE.get(name, UNKNOWN)
    return UNKNOWN if found == YES and remark and remark not in HARMLESS_REMARKS else found
