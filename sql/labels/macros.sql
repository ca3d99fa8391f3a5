-- How a caption falls into tokens: a word (letters, marks, digits), or a break (other signs).
-- Spaces, hyphens, apostrophes and quotation marks stand between the words of a phrase; a phrase
-- does not reach over a break. `pieces` are the same tokens, each with what stands before it.
-- Lower-casing keeps the number of code points, so both have a token for a token.
--
-- Most captions are plain: ASCII words with one space, hyphen or apostrophe between, perhaps after
-- a comma. They are split at spaces, five times faster than by a pattern, into the same tokens.
create or replace temp macro is_plain(caption) as regexp_full_match(
    caption, '[A-Za-z0-9]+(?:(?:,? |[''-])[A-Za-z0-9]+)*[.,]?'
);

create or replace temp macro words(caption, plain) as if(
    plain,
    string_split(
        replace(
            replace(replace(replace(lower(caption), '-', ' '), '''', ' '), ',', ' ,'), '.', ' .'
        ),
        ' '
    ),
    regexp_extract_all(lower(caption), '[\pL\pM\pN]+|[^\pL\pM\pN\s\pZ\-‐‑''’‘`"“”_]+')
);

create or replace temp macro pieces(caption) as regexp_extract_all(
    lower(caption),
    '[\s\pZ\-‐‑''’‘`"“”_]*(?:[\pL\pM\pN]+|[^\pL\pM\pN\s\pZ\-‐‑''’‘`"“”_]+)'
);

-- Code points of a caption up to the end of its nth token.
create or replace temp macro length_up_to(caption, plain, words, n) as if(
    plain,
    list_sum(
        list_transform(words[: n], lambda word: if(word in (',', '.'), 1, strlen(word) + 1))
    ) - 1,
    length(array_to_string(pieces(caption)[: n], ''))
);

-- A word of a caption (null behind its end) against one of a form: `_` is any word, `.` a break.
create or replace temp macro stands(word, wanted) as case wanted
    when '_' then regexp_matches(coalesce(word, '.'), '^[\pL\pM\pN]')
    when '.' then not regexp_matches(coalesce(word, '.'), '^[\pL\pM\pN]')
    else word = wanted
end;
