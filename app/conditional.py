"""Whether a client has already what it asks for (RFC 9110, 13.1.2)."""


def is_known(etag: str, if_none_match: str) -> bool:
    """Whether the header names this ETag, which is told without its quotation marks; a weak one counts as well."""
    named = {each.strip().removeprefix("W/") for each in if_none_match.split(",")}
    return not named.isdisjoint({f'"{etag}"', "*"})
