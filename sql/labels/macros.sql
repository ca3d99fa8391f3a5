-- How a caption falls into tokens: a word (letters, marks, digits), or a break (other signs).
-- Spaces, hyphens, apostrophes and quotation marks stand between the words of a phrase; a phrase
-- does not reach over a break. `pieces` are the same tokens, each with what stands before it.
-- Lower-casing keeps the number of code points, so both have a token for a token.
create or replace temp macro words(caption) as regexp_extract_all(
    lower(caption), '[\pL\pM\pN]+|[^\pL\pM\pN\s\pZ\-‐‑''’‘`"“”_]+'
);

create or replace temp macro pieces(caption) as regexp_extract_all(
    lower(caption),
    '[\s\pZ\-‐‑''’‘`"“”_]*(?:[\pL\pM\pN]+|[^\pL\pM\pN\s\pZ\-‐‑''’‘`"“”_]+)'
);

-- Whether a caption's token is the one that a form asks for; * asks for any word.
create or replace temp macro fits(token, asked) as
    token = asked or (asked = '*' and regexp_matches(token, '^[\pL\pM\pN]'));
