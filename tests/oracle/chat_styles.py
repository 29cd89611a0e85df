"""Chat templates of our own in the styles that models use, for templates.py.

Each writes a format that exists in the manner of its kind (how it finds the system message, walks the turns, writes tools and
thinking) and leans on other features of the language. None is a copy of a published template.
"""

STYLES = {}


def style(name):
    def add(text):
        STYLES[name] = text
    return add


# ---- plain turns ----

style("chatml")("""{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}""")

style("chatml_default_system")("""{%- if not messages or messages[0].role != 'system' -%}
<|im_start|>system
You are a helpful assistant.<|im_end|>
{% endif -%}
{%- for m in messages -%}
<|im_start|>{{ m.role }}
{{ m.content }}{% if (loop.last and add_generation_prompt) or not loop.last %}<|im_end|>
{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt and messages and messages[-1].role != 'assistant' -%}
<|im_start|>assistant
{% endif -%}""")

style("llama2")("""{% if messages|length and messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}
{% for message in loop_messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Turns have to go user, assistant, user, assistant and so on') }}
{% endif %}
{% if loop.index0 == 0 and system_message != false %}
{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}
{% else %}
{% set content = message['content'] %}
{% endif %}
{% if message['role'] == 'user' %}
{{- bos_token + '[INST] ' + content.strip() + ' [/INST]' }}
{% elif message['role'] == 'assistant' %}
{{- ' '  + content.strip() + ' ' + eos_token }}
{% endif %}
{% endfor %}""")

style("llama3")("""{%- set ns = namespace(out=bos_token) -%}
{%- for message in messages -%}
  {%- set ns.out = ns.out ~ '<|start_header_id|>' ~ message.role ~ '<|end_header_id|>\\n\\n' ~ message.content | trim ~ '<|eot_id|>' -%}
{%- endfor -%}
{{ ns.out }}
{%- if add_generation_prompt -%}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif -%}""")

style("mistral_v1")("""{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 is even) %}{{ raise_exception('After the user comes the assistant: turn ' ~ loop.index) }}{% endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}{% else %}{{ raise_exception('Only user and assistant are known here!') }}{% endif %}{% endfor %}""")

style("gemma")("""{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('There is no system role') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must take turns: user/assistant/…') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}""")

style("gemma3_parts")("""{{ bos_token }}
{%- if messages[0].role == 'system' -%}
    {%- if messages[0].content is string -%}
        {%- set first_user_prefix = messages[0].content + '\\n\\n' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0].content[0].text + '\\n\\n' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- set role = 'model' if message.role == 'assistant' else message.role -%}
    {{ '<start_of_turn>' + role + '\\n' + (first_user_prefix if loop.first else "") }}
    {%- if message.content is string -%}
        {{ message.content | trim }}
    {%- elif message.content is iterable -%}
        {%- for item in message.content -%}
            {%- if item.type == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item.type == 'text' -%}
                {{ item.text | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Content of this kind is not known") }}
    {%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '<start_of_turn>model\\n' }}
{%- endif -%}""")

style("phi3")("""{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}{{'<|system|>\\n' + message['content'] + '<|end|>\\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\\n' + message['content'] + '<|end|>\\n'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>\\n' + message['content'] + '<|end|>\\n'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}""")

style("phi4")("""{%- set mark = {'system': 'system', 'user': 'user', 'assistant': 'assistant'} -%}
{%- for m in messages if m.role in mark -%}
{{ ['<|im_start|>', mark[m.role], '<|im_sep|>', m.content, '<|im_end|>'] | join }}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif -%}""")

style("zephyr")("""{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""")

style("vicuna")("""{%- set sep = [' ', eos_token] -%}
{%- if messages and messages[0]['role'] == 'system' -%}
{%- set system = messages[0]['content'].strip() -%}{%- set rest = messages[1:] -%}
{%- else -%}
{%- set system = 'A chat between a curious person and an assistant.' -%}{%- set rest = messages -%}
{%- endif -%}
{{ system ~ sep[0] }}
{%- for m in rest -%}
{{ m['role']|upper ~ ': ' ~ m['content'] ~ sep[loop.index0 % 2] }}
{%- endfor -%}
{{ 'ASSISTANT:' if add_generation_prompt }}""")

style("alpaca")("""{% macro section(title, body='') -%}
### {{ title | capitalize }}:
{{ body }}

{% endmacro -%}
{%- for m in messages -%}
{%- if m.role == 'system' -%}{{ m.content }}{{ "\\n\\n" }}
{%- elif m.role == 'user' -%}{{ section('instruction', m.content) }}
{%- else -%}{{ section('response', body=m.content ~ eos_token) }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ section('response').rstrip('\\n') ~ '\\n' }}{%- endif -%}""")

style("orca")("""{%- set names = dict(system='### System:', user='### User:', assistant='### Assistant:') -%}
{%- for message in messages -%}
{{ names.get(message.role, '### ' ~ message.role | title ~ ':') }}
{{ message.content }}

{% endfor -%}
{%- if add_generation_prompt %}
### Assistant:
{% endif %}""")

style("saiga")("""{%- for message in messages -%}
{{- bos_token -}}{{ {'assistant': 'bot'}.get(message['role'], message['role']) }}
{{ message['content'] }}{{ eos_token -}}
{%- if not loop.last %}
{% endif -%}
{%- endfor -%}
{% if add_generation_prompt %}
{{ bos_token }}bot
{% endif %}""")

style("openchat")("""{{ bos_token }}{% for message in messages %}{{ 'GPT4 Correct ' + message['role'].title() + ': ' + message['content'] + '<|end_of_turn|>'}}{% endfor %}{% if add_generation_prompt %}{{ 'GPT4 Correct Assistant:' }}{% endif %}""")

style("falcon")("""{%- for message in messages -%}
{%- if not loop.first %}{{ '\\n' }}{% endif -%}
{{ message['role'] | capitalize }}: {{ message['content'] | trim | replace('\\r\\n', '\\n') | replace('\\n\\n', '\\n') }}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '\\n' if messages }}Assistant:{% endif -%}""")

style("stablelm")("""{%- for m in messages -%}
{{ '<|' ~ m.role ~ '|>\\n' ~ m.content ~ '<|endoftext|>\\n' }}
{%- endfor -%}
{{- '<|assistant|>\\n' if add_generation_prompt else '' -}}""")

style("yi")("""{%- set has_system = messages | selectattr('role', 'equalto', 'system') | list | length > 0 -%}
{%- if not has_system %}{{ '' }}{% endif -%}
{%- for m in messages | rejectattr('role', 'in', ['tool', 'function']) -%}
<|im_start|>{{ m.role + '\\n' + (m.content or '') }}<|im_end|>
{{ '' }}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}""")

style("internlm2")("""{{ bos_token }}{% for message in messages %}{% set tag = '<|im_start|>' ~ message.role %}{% if message.name is defined %}{% set tag = tag ~ ' name=<|' ~ message.name ~ '|>' %}{% endif %}{{ tag ~ '\\n' ~ message.content ~ '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}""")

style("solar")("""{% for message in messages %}{% if message.role == 'system' %}{{ '### System:\\n' ~ message.content ~ '\\n\\n' }}{% elif message.role == 'user' %}{{ '### User:\\n' ~ message.content ~ '\\n\\n' }}{% else %}{{ '### Assistant:\\n' ~ message.content ~ '\\n\\n' }}{% endif %}{% if loop.last and add_generation_prompt and message.role != 'assistant' %}{{ '### Assistant:\\n' }}{% endif %}{% endfor %}""")

style("olmo")("""{{ eos_token }}{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>
' }}
{% endif %}
{% endfor %}""")

style("dialogpt")("""{% for message in messages %}{{ message.content }}{{ eos_token }}{% endfor %}""")

style("minicpm")("""{% for message in messages %}{% if message['role'] == 'user' %}{{'<用户>' + message['content'].strip() + '<AI>'}}{% else %}{{message['content'].strip()}}{% endif %}{% endfor %}""")

style("exaone")("""{% for message in messages %}{% if loop.first and message['role'] != 'system' %}{{ '[|system|][|endofturn|]\\n' }}{% endif %}{{ '[|' + message['role'] + '|]' + message['content'] }}{% if message['role'] == 'user' %}{{ '\\n' }}{% else %}{{ '[|endofturn|]\\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '[|assistant|]' }}{% endif %}""")

style("aya")("""{{ bos_token }}
{%- set token = {'user': '<|USER_TOKEN|>', 'assistant': '<|CHATBOT_TOKEN|>', 'system': '<|SYSTEM_TOKEN|>'} -%}
{%- for role in messages | map(attribute='role') -%}
  {%- set content = messages[loop.index0]['content'] -%}
  {{ '<|START_OF_TURN_TOKEN|>' ~ token[role] | default('<|USER_TOKEN|>') ~ content ~ '<|END_OF_TURN_TOKEN|>' }}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|>' ~ token.assistant }}{% endif %}""")

style("chatglm")("""[gMASK]<sop>
{%- for item in messages -%}
  {%- if item['role'] != 'system' -%}<|{{ item['role'] }}|>
{{ item['content'] }}{%- else -%}<|system|>
{{ item['content'] | trim('\\n ') }}{%- endif -%}
{%- endfor -%}
{% if add_generation_prompt %}<|assistant|>{% endif %}""")

style("starchat_beta")("""{%- if messages | length == 0 %}{{ raise_exception('There is nothing to answer') }}{% endif -%}
{%- for message in messages -%}
<|{{ message.role }}|>
{{ message.content | wordwrap(20) }}<|end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|assistant|>
{%- endif -%}""")

style("human_assistant")("""{%- macro line(who, what) -%}{{ who }}: {{ what | trim | indent(2) }}{%- endmacro -%}
{%- set lines = namespace(all=[]) -%}
{%- for m in messages -%}
  {%- set who = {'user': 'Human', 'assistant': 'Assistant'}[m.role] if m.role in ('user', 'assistant') else 'Note' -%}
  {%- set lines.all = lines.all + [line(who, m.content)] -%}
{%- endfor -%}
{{ lines.all | join('\\n\\n') }}{{ '\\n\\nAssistant:' if add_generation_prompt }}""")

style("guanaco")("""{% for m in messages %}{{ '### ' ~ ('Human' if m.role == 'user' else 'Assistant' if m.role == 'assistant' else 'System') ~ ': ' ~ m.content }}{{ '\\n' if not loop.last }}{% endfor %}{% if add_generation_prompt %}{{ '\\n### Assistant:' }}{% endif %}""")

style("generation_marks")("""{%- for message in messages -%}
  {%- if message.role == 'assistant' -%}
    {{- '<|im_start|>assistant\\n' -}}
    {%- generation -%}
    {{- message.content -}}<|im_end|>
    {%- endgeneration -%}
    {{- '\\n' -}}
  {%- else -%}
    {{- '<|im_start|>' ~ message.role ~ '\\n' ~ message.content ~ '<|im_end|>\\n' -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}""")

style("ends_of_lines")("""{% for m in messages -%}\r
  [{{ loop.index }}/{{ loop.length }}] {{ m.role }}:\r
    {{ m.content }}\r
  {#- what follows is taken away -#}   \r

{%+ if loop.last %} (last){% endif +%}
{% endfor %}
{# the end #}
""")

# ---- dates, variables, documents ----

style("dated_system")("""{%- if date_string is not defined -%}
{%- if strftime_now is defined -%}{%- set date_string = strftime_now('%d %b %Y') -%}{%- else -%}{%- set date_string = '26 Jul 2024' -%}{%- endif -%}
{%- endif -%}
{%- set system = (messages | selectattr('role', 'eq', 'system') | map(attribute='content') | join('\\n')) -%}
<|system|>
Cutting Knowledge Date: December 2023
Today Date: {{ date_string }}
{{ system }}
{% for m in messages if m.role != 'system' -%}
<|{{ m.role }}|>
{{ m.content }}
{% endfor -%}
{% if add_generation_prompt %}<|assistant|>
{% endif %}""")

style("granite3")("""{%- if messages[0]['role'] == 'system' -%}
{%- set system_message = messages[0]['content'] -%}{%- set loop_messages = messages[1:] -%}
{%- else -%}
{%- set system_message = "Knowledge Cutoff Date: April 2024.\\nToday's Date: " + strftime_now('%B %d, %Y') + "." -%}
{%- if tools and documents -%}{%- set system_message = system_message + " Use the tools and the documents." -%}
{%- elif tools -%}{%- set system_message = system_message + " Use the tools." -%}
{%- elif documents -%}{%- set system_message = system_message + " Use the documents." -%}
{%- elif thinking -%}{%- set system_message = system_message + " Think first." -%}
{%- endif -%}
{%- set loop_messages = messages -%}
{%- endif -%}
{{- '<|start_of_role|>system<|end_of_role|>' + system_message + '<|end_of_text|>\\n' -}}
{%- if tools -%}{{- '<|start_of_role|>tools<|end_of_role|>' + (tools | tojson(indent=4)) + '<|end_of_text|>\\n' -}}{%- endif -%}
{%- if documents -%}
  {{- '<|start_of_role|>documents<|end_of_role|>' -}}
  {%- for document in documents -%}
    {{- 'Document ' + loop.index | string + '\\n' + document['text'] -}}{%- if not loop.last -%}{{- '\\n\\n' -}}{%- endif -%}
  {%- endfor -%}
  {{- '<|end_of_text|>\\n' -}}
{%- endif -%}
{%- for message in loop_messages -%}
{{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' + (message['content'] or '') + '<|end_of_text|>\\n' -}}
{%- if loop.last and add_generation_prompt -%}{{- '<|start_of_role|>assistant' -}}{%- if controls -%}{{- ' ' + controls | tojson -}}{%- endif -%}{{- '<|end_of_role|>' -}}{%- endif -%}
{%- endfor -%}""")

style("command_r_rag")("""{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = '## Task\\nAnswer with the help of what was found.' %}{% endif %}
{{ '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|># Safety Preamble\\n' }}
{{ system_message }}{{ '<|END_OF_TURN_TOKEN|>' }}
{% for message in loop_messages %}
{% set content = message['content'] %}
{% if message['role'] == 'user' %}
{{ '<|START_OF_TURN_TOKEN|><|USER_TOKEN|>' + content.strip() + '<|END_OF_TURN_TOKEN|>' }}
{%- elif message['role'] == 'assistant' %}
{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' + content.strip() + '<|END_OF_TURN_TOKEN|>' }}
{%- endif %}
{% endfor %}
{{ '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|><results>' }}
{% for document in documents or [] %}
{{ '\\nDocument: ' }}{{ loop.index0 }}
{% for key, value in document.items() %}
{{ key }}: {{ value }}
{% endfor %}
{% endfor %}
{{ '</results><|END_OF_TURN_TOKEN|>' }}
{%- if citation_mode | default('accurate') == 'accurate' %}
{{ 'Write with citations.' }}
{%- endif %}
{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}""")

style("documents_as_json")("""{%- for d in documents or [] -%}
<doc {{ {'id': loop.index, 'title': d.title | default(none), 'last': loop.last} | xmlattr(false) }}>{{ d.text | truncate(24) | e }}</doc>
{% else -%}
<no-docs/>
{% endfor -%}
{%- for m in messages -%}{{ {'role': m.role, 'content': m.content} | tojson(sort_keys=true) }}
{% endfor -%}""")

# ---- tools ----

style("llama31_tools")("""{{- bos_token }}
{%- if custom_tools is defined %}{%- set tools = custom_tools %}{%- endif %}
{%- if not tools_in_user_message is defined %}{%- set tools_in_user_message = true %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if builtin_tools is defined or tools is not none %}{{- "Environment: ipython\\n" }}{%- endif %}
{%- if builtin_tools is defined %}{{- "Tools: " + builtin_tools | reject('equalto', 'code_interpreter') | join(", ") + "\\n\\n"}}{%- endif %}
{{- "Today Date: " + strftime_now("%d %b %Y") + "\\n\\n" }}
{%- if tools is not none and not tools_in_user_message %}
    {%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}
{%- endif %}
{{- system_message }}{{- "<|eot_id|>" }}
{%- if tools_in_user_message and not tools is none %}
    {%- if messages | length != 0 %}
        {%- set first_user_message = messages[0]['content']|trim %}
        {%- set messages = messages[1:] %}
    {%- else %}
        {{- raise_exception("Cannot put tools in the first user message when there's no first user message!") }}
    {%- endif %}
    {{- '<|start_header_id|>user<|end_header_id|>\\n\\nGiven the following functions, answer with JSON.\\n\\n' -}}
    {%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}
    {{- first_user_message + "<|eot_id|>"}}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}{{- raise_exception("This model only supports single tool-calls at once!") }}{%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {%- if builtin_tools is defined and tool_call.name in builtin_tools %}
            {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n<|python_tag|>' + tool_call.name + ".call(" }}
            {%- for arg_name, arg_val in tool_call.arguments | items %}
                {{- arg_name + '="' ~ arg_val ~ '"' }}{%- if not loop.last %}{{- ", " }}{%- endif %}
            {%- endfor %}
            {{- ")<|eom_id|>" }}
        {%- else %}
            {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "' + tool_call.name + '", "parameters": ' }}
            {{- tool_call.arguments | tojson }}{{- "}<|eot_id|>" }}
        {%- endif %}
    {%- else %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}{{- message.content | tojson }}{%- else %}{{- message.content }}{%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}""")

style("mistral_v3_tools")("""{%- set system_message = none -%}{%- set loop_messages = messages -%}
{%- if messages[0]["role"] == "system" -%}{%- set system_message = messages[0]["content"] -%}{%- set loop_messages = messages[1:] -%}{%- endif -%}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list -%}
{%- set ns = namespace(index=0) -%}
{%- for message in loop_messages -%}
  {%- if not (message.role == "tool" or message.role == "tool_results" or (message.tool_calls is defined and message.tool_calls is not none)) -%}
    {%- if (message["role"] == "user") != (ns.index % 2 == 0) -%}{{- raise_exception("Turns that are not about tools must alternate") -}}{%- endif -%}
    {%- set ns.index = ns.index + 1 -%}
  {%- endif -%}
{%- endfor -%}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}{{- '"' + key + '": "' + val + '"' }}
                    {%- else %}{{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}{{- ", " }}{%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" }}{%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined and system_message %}{{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}{{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id|length != 9 %}{{- raise_exception("Ids of tool calls have 9 characters") }}{%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}
            {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" + eos_token }}{%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}{{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] == "tool_results" or message["role"] == "tool" %}
        {%- if message.content is defined and message.content.content is defined %}{%- set content = message.content.content %}
        {%- else %}{%- set content = message.content %}
        {%- endif %}
        {{- '[TOOL_RESULTS] {"content": ' + content|string + ", " }}
        {{- '"call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
    {%- else %}{{- raise_exception("Roles are user, assistant, tool and a first system") }}
    {%- endif %}
{%- endfor %}""")

style("mistral_v7")("""{{- bos_token -}}
{%- for m in messages -%}
{%- if m.role == 'system' -%}[SYSTEM_PROMPT] {{ m.content }}[/SYSTEM_PROMPT]
{%- elif m.role == 'user' -%}
  {%- if tools and loop.index0 == (messages | selectattr('role', 'eq', 'user') | list | length) -%}[AVAILABLE_TOOLS] {{ tools | tojson }}[/AVAILABLE_TOOLS]{%- endif -%}
  [INST] {{ m.content }}[/INST]
{%- elif m.role == 'tool' -%}[TOOL_RESULTS] {{ {'call_id': m.tool_call_id, 'content': m.content} | tojson(sort_keys=true) }}[/TOOL_RESULTS]
{%- elif m.tool_calls -%}[TOOL_CALLS] [{% for c in m.tool_calls %}{{ {'name': c.function.name, 'arguments': c.function.arguments, 'id': c.id[-9:]} | tojson }}{{ ', ' if not loop.last }}{% endfor %}]{{ eos_token }}
{%- else %} {{ m.content }}{{ eos_token }}
{%- endif -%}
{%- endfor -%}""")

style("mistral_tekken")("""{%- set default = 'You are a model of ours. It is ' ~ strftime_now('%Y-%m-%d') ~ '; yesterday was ' ~ yesterday | default('the day before') ~ '.' -%}
{{- bos_token -}}
{%- macro parts(content, allow_images) -%}
  {%- if content is string -%}{{ content }}
  {%- else -%}
    {%- for block in content -%}
      {%- if block.type == 'text' -%}{{ block.text }}
      {%- elif block.type in ['image', 'image_url'] and allow_images -%}[IMG]
      {%- else -%}{{ raise_exception('Only text and images: ' ~ block.type) }}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
{%- if messages[0].role != 'system' -%}[SYSTEM_PROMPT]{{ default }}[/SYSTEM_PROMPT]{%- endif -%}
{%- for m in messages -%}
  {%- if m.role == 'system' -%}[SYSTEM_PROMPT]{{ parts(m.content, false) }}[/SYSTEM_PROMPT]
  {%- elif m.role == 'user' -%}[INST]{{ parts(m.content, allow_images=true) }}[/INST]
  {%- elif m.role == 'assistant' -%}
    {%- if m.tool_calls -%}
      {%- for c in m.tool_calls -%}[TOOL_CALLS]{{ c.function.name }}[ARGS]{{ c.function.arguments if c.function.arguments is string else c.function.arguments | tojson }}{%- endfor -%}
    {%- else -%}{{ parts(m.content, false) }}{%- endif -%}{{ eos_token }}
  {%- elif m.role == 'tool' -%}[TOOL_RESULTS]{{ m.tool_call_id }}[TOOL_CONTENT]{{ m.content | string }}[/TOOL_RESULTS]
  {%- endif -%}
{%- endfor -%}""")

style("qwen25_tools")("""{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}{{- messages[0]['content'] }}{%- else %}{{- 'You are a helpful assistant.' }}{%- endif %}
    {{- "\\n\\n# Tools\\n\\nFunction signatures within <tools></tools>:\\n<tools>" }}
    {%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}
    {{- "\\n</tools>\\n\\nAnswer with <tool_call>\\n{\\"name\\": <function-name>, \\"arguments\\": <args-json-object>}\\n</tool_call><|im_end|>\\n" }}
{%- elif messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}{{- '\\n' + message.content }}{%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}{%- set tool_call = tool_call.function %}{%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}{{- tool_call.arguments | tojson }}{{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' }}{{- message.content }}{{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}""")

style("qwen3_thinking")("""{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role in ("user", "system") %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or reasoning_content) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls or [] %}
            {%- if (loop.first and content) or not loop.first %}{{- '\\n' }}{%- endif %}
            {%- set f = tool_call.function or tool_call %}
            {{- '<tool_call>\\n{"name": "' ~ f.name ~ '", "arguments": ' }}
            {%- if f.arguments is string %}{{- f.arguments }}{%- else %}{{- f.arguments | tojson }}{%- endif %}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or messages[loop.index0 - 1].role != "tool" %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' ~ content ~ '\\n</tool_response>' }}
        {%- if loop.last or loop.nextitem.role != "tool" %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}""")

style("deepseek_v2")("""{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ 'User: ' + message['content'] + '\\n\\n' }}{% elif message['role'] == 'assistant' %}{{ 'Assistant: ' + message['content'] + eos_token }}{% elif message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}""")

style("deepseek_v3")("""{% set ns = namespace(is_first=false, is_tool=false, is_output_first=true, system_prompt='', is_first_sp=true) %}{%- for message in messages %}{%- if message['role'] == 'system' %}{%- if ns.is_first_sp %}{% set ns.system_prompt = ns.system_prompt + message['content'] %}{% set ns.is_first_sp = false %}{%- else %}{% set ns.system_prompt = ns.system_prompt + '\\n\\n' + message['content'] %}{%- endif %}{%- endif %}{%- endfor %}{{ bos_token }}{{ ns.system_prompt }}{%- for message in messages %}{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}{{'<｜User｜>' + message['content']}}{%- endif %}{%- if message['role'] == 'assistant' and 'tool_calls' in message %}{%- set ns.is_tool = false -%}{%- for tool in message['tool_calls'] %}{%- if not ns.is_first %}{{'<｜Assistant｜>' if not message['content'] else '<｜Assistant｜>' + message['content']}}{{'<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' + tool['type'] + '<｜tool▁sep｜>' + tool['function']['name'] + '\\n```json\\n'}}{{ tool['function']['arguments'] if tool['function']['arguments'] is string else tool['function']['arguments'] | tojson }}{{'\\n```<｜tool▁call▁end｜>'}}{%- set ns.is_first = true -%}{%- else %}{{'\\n<｜tool▁call▁begin｜>' + tool['type'] + '<｜tool▁sep｜>' + tool['function']['name'] + '\\n```<｜tool▁call▁end｜>'}}{%- endif %}{%- endfor %}{{'<｜tool▁calls▁end｜><｜end▁of▁sentence｜>'}}{%- endif %}{%- if message['role'] == 'assistant' and 'tool_calls' not in message %}{%- if ns.is_tool %}{{'<｜tool▁outputs▁end｜>' + message['content'] + '<｜end▁of▁sentence｜>'}}{%- set ns.is_tool = false -%}{%- else %}{{'<｜Assistant｜>' + message['content'] + '<｜end▁of▁sentence｜>'}}{%- endif %}{%- endif %}{%- if message['role'] == 'tool' %}{%- set ns.is_tool = true -%}{%- if ns.is_output_first %}{{'<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>' + message['content'] + '<｜tool▁output▁end｜>'}}{%- set ns.is_output_first = false %}{%- else %}{{'\\n<｜tool▁output▁begin｜>' + message['content'] + '<｜tool▁output▁end｜>'}}{%- endif %}{%- endif %}{%- endfor -%}{% if ns.is_tool %}{{'<｜tool▁outputs▁end｜>'}}{% endif %}{% if add_generation_prompt and not ns.is_tool %}{{'<｜Assistant｜>'}}{% endif %}""")

style("deepseek_r1")("""{{ bos_token }}
{%- for m in messages -%}
{%- if m.role == 'system' %}{{ m.content }}
{%- elif m.role == 'user' %}{{ '<｜User｜>' ~ m.content }}
{%- elif m.role == 'assistant' and m.content is not none -%}
  {%- set content = m.content -%}
  {%- if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif -%}
  {{ '<｜Assistant｜>' ~ content ~ '<｜end▁of▁sentence｜>' }}
{%- endif -%}
{%- endfor -%}
{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}""")

style("hermes_tools")("""{%- macro json_to_python_type(json_spec) %}
{%- set basic_type_map = {"string": "str", "number": "float", "integer": "int", "boolean": "bool"} %}
{%- if basic_type_map[json_spec.type] is defined %}
{{- basic_type_map[json_spec.type] }}
{%- elif json_spec.type == "array" %}
{{- "list[" + json_to_python_type(json_spec|items) + "]" }}
{%- elif json_spec.type == "object" %}
{%- if json_spec.additionalProperties is defined %}{{- "dict[str, " + json_to_python_type(json_spec.additionalProperties) + ']' }}
{%- else %}{{- "dict" }}
{%- endif %}
{%- elif json_spec.type is iterable and json_spec.type is not string %}
{{- "Union[" }}
{%- for t in json_spec.type %}
{{- json_to_python_type({"type": t}) }}
{%- if not loop.last %}{{- "," }}{%- endif %}
{%- endfor %}
{{- "]" }}
{%- else %}
{{- "Any" }}
{%- endif %}
{%- endmacro %}
{{- bos_token }}
{{- '<|im_start|>system\\nYou call functions.\\n<tools> ' }}
{%- for tool in tools or [] %}
{%- set tool = tool.function if tool.function is defined else tool %}
{{- '{"type": "function", "function": {"name": "' ~ tool.name ~ '", "description": "' ~ tool.name ~ '(' }}
{%- for param_name, param_fields in tool.parameters.properties|items %}
{{- param_name + ": " + json_to_python_type(param_fields) }}{%- if not loop.last %}{{- ", " }}{%- endif %}
{%- endfor %}
{{- ")" }}
{%- if tool.return is defined %}{{- " -> " + json_to_python_type(tool.return) }}{%- endif %}
{{- " - " + tool.description + "\\n\\n" }}
{%- for param_name, param_fields in tool.parameters.properties|items %}
{%- if loop.first %}{{- "    Args:\\n" }}{%- endif %}
{{- "        " + param_name + "(" + json_to_python_type(param_fields) + "): " + (param_fields.description|default(''))|trim }}
{%- endfor %}
{{- '", "parameters": ' }}
{%- if tool.parameters.properties | length == 0 %}{{- "{}" }}{%- else %}{{- tool.parameters|tojson }}{%- endif %}
{{- "}" }}{%- if not loop.last %}{{- "\\n" }}{%- endif %}
{%- endfor %}
{{- " </tools><|im_end|>\\n" }}
{%- for message in messages %}
{%- if message.role in ["user", "system"] or (message.role == "assistant" and message.tool_calls is not defined) %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- elif message.role == "assistant" %}
{{- '<|im_start|>' + message.role }}
{%- for tool_call in message.tool_calls %}
{{- '\\n<tool_call>\\n' }}
{%- if tool_call.function is defined %}{%- set tool_call = tool_call.function %}{%- endif %}
{{- '{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}{{- tool_call.arguments|tojson }}{{- '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- elif message.role == "tool" %}
{%- if loop.previtem and loop.previtem.role != "tool" %}{{- '<|im_start|>tool\\n' }}{%- endif %}
{{- '<tool_response>\\n' }}{{- message.content }}
{%- if not loop.last %}{{- '\\n</tool_response>\\n' }}{%- else %}{{- '\\n</tool_response>' }}{%- endif %}
{%- if not loop.last and loop.nextitem.role != "tool" %}{{- '<|im_end|>' }}{%- elif loop.last %}{{- '<|im_end|>' }}{%- endif %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}""")

style("functionary")("""{%- macro type_of(p) -%}
  {%- if p.enum is defined -%}{{ p.enum | map('tojson') | join(' | ') }}
  {%- elif p.type is string -%}{{ {'integer': 'number', 'array': 'any[]'}.get(p.type, p.type) }}
  {%- else -%}{{ p.type | map('replace', 'integer', 'number') | join(' | ') }}
  {%- endif -%}
{%- endmacro -%}
{%- if tools %}<|system|>
// Supported function definitions
namespace functions {
{% for t in tools | map(attribute='function') %}

// {{ t.description }}
type {{ t.name }} = (_: {
{%- for name, p in t.parameters.properties.items() %}

{% if p.description %}// {{ p.description }}.
{% endif -%}
{{ name }}{{ '?' if name not in t.parameters.required }}: {{ type_of(p) }},{% if p.default is defined %} // Default={{ p.default }}.{% endif %}
{%- endfor %}

}) => any;
{% endfor %}
} // namespace functions
{% endif -%}
{%- for m in messages -%}
<|{{ m.role }}|>
{%- if m.role == 'tool' %}{{ m.name }}{% endif %}

{{ m.content if m.content is not none }}
{%- for c in m.tool_calls | default([]) %}
<function={{ c.function.name }}>{{ c.function.arguments if c.function.arguments is string else c.function.arguments | tojson }}</function>
{%- endfor %}

{% endfor -%}
{%- if add_generation_prompt %}<|assistant|>
{% endif -%}""")

style("xlam")("""{%- set tool_list = tools | default([], true) | map(attribute='function') | list -%}
{%- set text = 'You may call: ' ~ tool_list | map(attribute='name') | join(', ', ) ~ '.' if tool_list else 'No tools.' -%}
[BEGIN OF TASK INSTRUCTION]
{{ text }}
[END OF TASK INSTRUCTION]
{% for t in tool_list | sort(attribute='name') -%}
{% set args = t.parameters.properties | dictsort -%}
- {{ t.name }}({% for k, v in args %}{{ k }}={{ v.type if v.type is string else v.type[0] }}{{ ', ' if not loop.last }}{% endfor %})
{% endfor -%}
{%- for m in messages %}
[{{ m.role | upper }}] {{ m.content | default('', true) }}
{%- if m.tool_calls is defined %} {{ m.tool_calls | map(attribute='function') | list | tojson }}{% endif %}
{%- endfor %}
{{ '\\n[ASSISTANT]' if add_generation_prompt }}""")

style("jamba")("""{%- macro handle(message) -%}
  {%- if message.role == 'assistant' and message.tool_calls -%}
    {{- '<|assistant|>' ~ (message.content or '') ~ ' <tool_calls>[\\n' -}}
    {%- for c in message.tool_calls -%}
      {{- '    ' ~ {'name': c.function.name, 'arguments': c.function.arguments} | tojson ~ (',' if not loop.last else '') ~ '\\n' -}}
    {%- endfor -%}
    {{- ']</tool_calls>' -}}
  {%- else -%}
    {{- '<|' ~ message.role ~ '|>' ~ message.content -}}
  {%- endif -%}
{%- endmacro -%}
{{- bos_token -}}<|bom|>
{%- for message in messages -%}
{{- handle(message) ~ '<|eom|><|bom|>' -}}
{%- endfor -%}
{{- '<|assistant|> ' if add_generation_prompt -}}""")

style("glm4_tools")("""[gMASK]<sop>
{%- if tools -%}
<|system|>
# 可用工具
{%- for tool in tools %}{% if tool.type == 'function' %}

## {{ tool.function.name }}

{{ tool.function | tojson(indent=4, ensure_ascii=False) }}
在调用上述函数时，请使用 Json 格式表示调用的参数。
{%- elif tool.type == 'python' %}

## python
{%- endif %}{% endfor -%}
{%- endif -%}
{%- for msg in messages -%}
  {%- if msg.role == 'system' %}<|system|>
{{ msg.content }}
  {%- elif msg.role == 'user' -%}<|user|>
{{ msg.content }}
  {%- elif msg.role == 'assistant' -%}
    {%- if msg.tool_calls -%}{% for c in msg.tool_calls -%}<|assistant|>{{ c.function.name }}
{{ c.function.arguments | string if c.function.arguments is string else c.function.arguments | tojson }}{% endfor -%}
    {%- else -%}<|assistant|>{{ '\\n' ~ msg.content.split('</think>')[-1].strip() }}
    {%- endif -%}
  {%- else -%}<|observation|>
{{ msg.content }}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|>{{- '\\n<think></think>' if (enable_thinking is defined and not enable_thinking) else '' -}}{%- endif -%}""")

style("kimi_tools")("""{%- macro render_content(msg) -%}
    {%- set c = msg.get('content') -%}
    {%- if c is string -%}{{ c }}
    {%- elif c is not none -%}
      {%- for content in c -%}
        {%- if content['type'] == 'image' or 'image' in content -%}<|media_start|>image<|media_content|><|media_pad|><|media_end|>
        {%- else -%}{{ content['text'] }}
        {%- endif -%}
      {%- endfor -%}
    {%- endif -%}
{%- endmacro -%}
{%- if tools -%}<|im_system|>tool_declare<|im_middle|>{{ tools | tojson(separators=(',', ':')) }}<|im_end|>{%- endif -%}
{%- for message in messages -%}
  {%- if loop.first and messages[0]['role'] != 'system' -%}<|im_system|>system<|im_middle|>You are a helpful assistant<|im_end|>{%- endif -%}
  {%- set role_name = message.get('name') or message['role'] -%}
  {%- if message['role'] == 'user' -%}<|im_user|>{{ role_name }}<|im_middle|>
  {%- elif message['role'] == 'assistant' -%}<|im_assistant|>{{ role_name }}<|im_middle|>
  {%- else -%}<|im_system|>{{ role_name }}<|im_middle|>
  {%- endif -%}
  {%- if message['role'] == 'assistant' and message.get('tool_calls') -%}
    {{ render_content(message) }}<|tool_calls_section_begin|>
    {%- for tool_call in message['tool_calls'] -%}
      <|tool_call_begin|>{{ tool_call['id'] }}<|tool_call_argument_begin|>{% if tool_call['function']['arguments'] is string %}{{ tool_call['function']['arguments'] }}{% else %}{{ tool_call['function']['arguments'] | tojson }}{% endif %}<|tool_call_end|>
    {%- endfor -%}
    <|tool_calls_section_end|>
  {%- elif message['role'] == 'tool' -%}## Return of {{ message.tool_call_id }}
{{ render_content(message) }}
  {%- else -%}{{ render_content(message) }}
  {%- endif -%}<|im_end|>
{%- endfor -%}
{%- if add_generation_prompt -%}<|im_assistant|>assistant<|im_middle|>{%- endif -%}""")

style("llama4")("""{{- bos_token }}
{%- if tools is not none and not tools_in_user_message | default(false) %}
    {{- "<|header_start|>system<|header_end|>\\n\\n" }}
    {%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}
    {{- "<|eot|>" }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role in ['ipython', 'tool'] %}
        {{- "<|header_start|>ipython<|header_end|>\\n\\n" }}
        {%- if message.content is string %}{{- message.content | tojson }}{%- else %}{%- for content in message['content'] %}{%- if content['type'] == 'text' %}{{- content['text'] | tojson }}{%- endif %}{%- endfor %}{%- endif %}
        {{- "<|eot|>" }}
    {%- elif message.tool_calls is defined and message.tool_calls|length > 0 %}
        {{- '<|header_start|>assistant<|header_end|>\\n\\n<|python_start|>' }}
        {%- for tool_call in message.tool_calls %}{{- '{"name": "' + tool_call.function.name + '", "parameters": ' }}{{- tool_call.function.arguments | tojson }}{{- "}" }}{%- endfor %}
        {{- "<|python_end|><|eot|>" }}
    {%- else %}
        {{- '<|header_start|>' + message['role'] + '<|header_end|>\\n\\n' }}
        {%- if message['content'] is string %}{{- message['content'] }}
        {%- else %}{%- for content in message['content'] %}{%- if content['type'] == 'image' %}{{- '<|image|>' }}{%- elif content['type'] == 'text' %}{{- content['text'] | trim }}{%- endif %}{%- endfor %}
        {%- endif %}
        {{- "<|eot|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|header_start|>assistant<|header_end|>\\n\\n' }}{%- endif %}""")

style("harmony")("""{%- macro render_typescript_type(param_spec, required_params, is_nullable=false) -%}
    {%- if param_spec.type == "array" -%}
        {%- if param_spec['items'] -%}{{- render_typescript_type(param_spec['items'], required_params) + "[]" }}{%- else -%}{{- "any[]" }}{%- endif -%}
    {%- elif param_spec.type is defined and param_spec.type is iterable and param_spec.type is not string and param_spec.type is not mapping -%}
        {{- param_spec.type | join(" | ") }}
    {%- elif param_spec.type == "string" -%}
        {%- if param_spec.enum -%}{{- '"' + param_spec.enum | join('" | "') + '"' -}}{%- else -%}{{- "string" }}{%- if param_spec.nullable %}{{- " | null" }}{%- endif -%}{%- endif -%}
    {%- elif param_spec.type in ("number", "integer") -%}{{- "number" }}
    {%- elif param_spec.type == "object" -%}
        {{- "{\\n" }}{%- for prop_name, prop_spec in param_spec.properties.items() -%}{{- prop_name }}{%- if prop_name not in (param_spec.required or []) -%}{{- "?" }}{%- endif -%}{{- ": " }}{{ render_typescript_type(prop_spec, param_spec.required or []) }}{%- if not loop.last -%}{{- ", " }}{%- endif -%}{%- endfor -%}{{- "}" }}
    {%- else -%}{{- "any" }}
    {%- endif -%}
{%- endmacro -%}
{%- macro render_tools(tools) -%}
    {{- "## functions\\n\\nnamespace functions {\\n\\n" }}
    {%- for tool in tools -%}
        {%- set tool = tool.function -%}
        {{- "// " + tool.description + "\\n" }}{{- "type "+ tool.name + " = (_: {\\n" }}
        {%- for param_name, param_spec in tool.parameters.properties.items() -%}
            {%- if param_spec.description -%}{{- "// " + param_spec.description + "\\n" }}{%- endif -%}
            {{- param_name }}{%- if param_name not in (tool.parameters.required or []) -%}{{- "?" }}{%- endif -%}{{- ": " }}{{- render_typescript_type(param_spec, tool.parameters.required or []) }}
            {%- if param_spec.default is defined -%}{{- ", // default: " + param_spec.default|tojson }}{%- else -%}{{- "," }}{%- endif -%}{{- "\\n" }}
        {%- endfor -%}
        {{- "}) => any;\\n\\n" }}
    {%- endfor -%}
    {{- "} // namespace functions" }}
{%- endmacro -%}
{{- "<|start|>system<|message|>You are a model of ours.\\nCurrent date: " + strftime_now("%Y-%m-%d") + "\\n\\nReasoning: " + (reasoning_effort | default("medium")) + "\\n\\n# Valid channels: analysis, commentary, final.<|end|>" }}
{%- if messages and messages[0].role in ["developer", "system"] -%}{%- set developer_message = messages[0].content -%}{%- set loop_messages = messages[1:] -%}
{%- else -%}{%- set developer_message = "" -%}{%- set loop_messages = messages -%}{%- endif -%}
{%- if developer_message or tools -%}
    {{- "<|start|>developer<|message|>" }}{%- if developer_message -%}{{- "# Instructions\\n\\n" ~ developer_message ~ "\\n\\n" }}{%- endif -%}
    {%- if tools -%}{{- "# Tools\\n\\n" }}{{- render_tools(tools) }}{%- endif -%}{{- "<|end|>" }}
{%- endif -%}
{%- set last_tool_call = namespace(name=none) -%}
{%- for message in loop_messages -%}
    {%- if message.role == 'assistant' -%}
        {%- if "content" in message and message.content is string and "<|channel|>analysis<|message|>" in message.content -%}{{- raise_exception("Thinking belongs into 'thinking', not into 'content'.") }}{%- endif -%}
        {%- if "tool_calls" in message -%}
            {%- set future_final_message = namespace(found=false) -%}
            {%- for future_message in loop_messages[loop.index:] -%}{%- if future_message.role == 'assistant' and "tool_calls" not in future_message -%}{%- set future_final_message.found = true -%}{%- endif -%}{%- endfor -%}
            {%- set tool_call = message.tool_calls[0].function -%}
            {%- if message.thinking and not future_final_message.found -%}{{- "<|start|>assistant<|channel|>analysis<|message|>" + message.thinking + "<|end|>" }}{%- endif -%}
            {{- "<|start|>assistant to=functions." + tool_call.name + "<|channel|>commentary json<|message|>" }}{{- tool_call.arguments|tojson }}{{- "<|call|>" }}
            {%- set last_tool_call.name = tool_call.name -%}
        {%- elif loop.last and not add_generation_prompt -%}
            {%- if "thinking" in message -%}{{- "<|start|>assistant<|channel|>analysis<|message|>" + message.thinking + "<|end|>" }}{%- endif -%}
            {{- "<|start|>assistant<|channel|>final<|message|>" ~ message.content ~ "<|return|>" }}
        {%- else -%}
            {{- "<|start|>assistant<|channel|>final<|message|>" ~ message.content ~ "<|end|>" }}{%- set last_tool_call.name = none -%}
        {%- endif -%}
    {%- elif message.role == 'tool' -%}
        {%- if last_tool_call.name is none -%}{{- raise_exception("A tool answers, but nobody called one!") }}{%- endif -%}
        {{- "<|start|>functions." + last_tool_call.name }}{{- " to=assistant<|channel|>commentary<|message|>" + message.content|tojson + "<|end|>" }}
    {%- elif message.role == 'user' -%}{{- "<|start|>user<|message|>" ~ message.content ~ "<|end|>" }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|start|>assistant{%- endif -%}""")

style("smollm3")("""{%- set reasoning_mode = '/think' if (enable_thinking is not defined or enable_thinking) else '/no_think' -%}
{%- if messages[0].role == 'system' -%}
  {%- set system_message = messages[0].content -%}
  {%- if '/no_think' in system_message -%}{%- set reasoning_mode = '/no_think' -%}{%- endif -%}
  {%- set custom = system_message.replace('/no_think', '').replace('/think', '').rstrip() -%}
{%- endif -%}
<|im_start|>system
## Metadata

Reasoning Mode: {{ reasoning_mode }}

## Custom Instructions

{{ custom if custom is defined and custom else ('Think first.' if reasoning_mode == '/think' else 'You are helpful.') }}
{%- set tool_section = namespace(text='') -%}
{%- for tool in xml_tools or tools or [] -%}{%- set tool_section.text = tool_section.text ~ '\\n' ~ (tool | string) -%}{%- endfor -%}
{%- if tool_section.text %}

### Tools
<tools>{{ tool_section.text }}
</tools>
{%- endif -%}
<|im_end|>
{% for message in messages -%}
  {%- set content = message.content if message.content is string else '' -%}
  {%- if message.role == 'user' -%}{{ '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
  {%- elif message.role == 'assistant' -%}
    {%- generation -%}
    {%- if reasoning_mode == '/think' -%}{{ '<|im_start|>assistant\\n' + content.lstrip('\\n') + '<|im_end|>\\n' }}
    {%- else -%}{{ '<|im_start|>assistant\\n' + '<think>\\n\\n</think>\\n' + content.lstrip('\\n') + '<|im_end|>\\n' }}
    {%- endif -%}
    {%- endgeneration -%}
  {%- elif message.role == 'tool' -%}{{ '<|im_start|>user\\n' + content + '<|im_end|>\\n' }}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' if reasoning_mode == '/think' else '<|im_start|>assistant\\n<think>\\n\\n</think>\\n' }}{%- endif -%}""")

style("nemotron_nano")("""{%- set ns = namespace(enable_thinking=true) -%}
{%- for message in messages -%}
  {%- set content = message['content'] -%}
  {%- if message['role'] in ['user', 'system'] and content is string -%}
    {%- if '/think' in content.replace('</think>', '') -%}{%- set ns.enable_thinking = true -%}
    {%- elif '/no_think' in content -%}{%- set ns.enable_thinking = false -%}
    {%- endif -%}
  {%- endif -%}
{%- endfor -%}
{{- bos_token -}}<SPECIAL_10>System
{% for message in messages if message.role == 'system' %}{{ message.content.replace('/think', '').replace('/no_think', '').strip() }}{% endfor %}
{%- if tools -%}{{- '\\n\\n<AVAILABLE_TOOLS>[' -}}{%- for tool in tools -%}{{- (tool.function if tool.function is defined else tool) | tojson -}}{{- ', ' if not loop.last else '' -}}{%- endfor -%}{{- ']</AVAILABLE_TOOLS>' -}}{%- endif -%}
{%- for message in messages if message.role != 'system' -%}
  {%- if message.role == 'user' %}

<SPECIAL_11>User
{{ message.content.replace('/think', '').replace('/no_think', '').strip() }}
  {%- elif message.role == 'assistant' %}

<SPECIAL_11>Assistant
{% set content = message.content or '' -%}
{{- (content.split('</think>')[1] if '</think>' in content else content).strip() -}}
    {%- if message.tool_calls -%}{{- '<TOOLCALL>[' -}}{%- for call in message.tool_calls -%}{%- set fn = call.function if call.function is defined else call -%}{{- '{"name": "' + fn.name + '", "arguments": ' -}}{%- if fn.arguments is string -%}{{- fn.arguments -}}{%- else -%}{{- fn.arguments | tojson -}}{%- endif -%}{{- '}' -}}{{- ', ' if not loop.last else '' -}}{%- endfor -%}{{- ']</TOOLCALL>' -}}{%- endif -%}
  {%- elif message.role == 'tool' -%}
    {%- if loop.first or (messages[loop.index0 - 1].role != 'tool') %}

<SPECIAL_11>User
{{ '<TOOL_RESPONSE>[' }}{%- endif -%}{{- message.content -}}{{- ', ' if not loop.last and (loop.nextitem.role == 'tool') else '' -}}{%- if loop.last or (loop.nextitem.role != 'tool') -%}{{- ']</TOOL_RESPONSE>' -}}{%- endif -%}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}

<SPECIAL_11>Assistant
{% if not ns.enable_thinking %}<think></think>{% else %}<think>
{% endif -%}
{%- endif -%}""")

style("minimax_like")("""{%- set ns = namespace(last_user=-1) -%}
{%- for m in messages -%}{%- if m.role == 'user' -%}{%- set ns.last_user = loop.index0 -%}{%- endif -%}{%- endfor -%}
{%- macro visible_text(content) -%}
  {%- if content is string -%}{{ content }}
  {%- elif content is iterable and content is not mapping -%}{%- for item in content -%}{%- if item is mapping and item.type == 'text' -%}{{- item.text }}{%- elif item is string -%}{{- item }}{%- endif -%}{%- endfor -%}
  {%- else -%}{{- content }}
  {%- endif -%}
{%- endmacro -%}
{%- for m in messages -%}
  {{- ']~b]' ~ {'assistant': 'ai'}.get(m.role, m.role) ~ '\\n' -}}
  {%- if m.role == 'assistant' and m.reasoning_content and loop.index0 > ns.last_user -%}{{- '<think>\\n' ~ m.reasoning_content ~ '\\n</think>\\n\\n' -}}{%- endif -%}
  {{- visible_text(m.content) -}}
  {%- for tc in m.tool_calls or [] -%}
    {%- if loop.first %}{{ '\\n<calls>\\n' }}{% endif -%}
    {{- '<invoke name="' ~ tc.function.name ~ '">' -}}
    {%- set args = tc.function.arguments -%}
    {%- for k, v in (args | items if args is mapping else []) -%}{{- '<parameter name="' ~ k ~ '">' ~ (v if v is string else v | tojson(ensure_ascii=False)) ~ '</parameter>' -}}{%- endfor -%}
    {{- '</invoke>\\n' -}}
    {%- if loop.last %}{{ '</calls>' }}{% endif -%}
  {%- endfor -%}
  {{- '[e~[\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- ']~b]ai\\n<think>\\n' -}}{%- endif -%}""")

style("lfm")("""{{- bos_token -}}{%- set system_prompt = "" -%}{%- set ns = namespace(system_prompt="") -%}
{%- if messages[0]["role"] == "system" -%}{%- set ns.system_prompt = messages[0]["content"] -%}{%- set messages = messages[1:] -%}{%- endif -%}
{%- if tools -%}
{%- set ns.system_prompt = ns.system_prompt + ("\\n" if ns.system_prompt else "") + "List of tools: <|tool_list_start|>[" -%}
{%- for tool in tools -%}{%- if tool is not string -%}{%- set tool = tool | tojson -%}{%- endif -%}{%- set ns.system_prompt = ns.system_prompt + tool -%}{%- if not loop.last -%}{%- set ns.system_prompt = ns.system_prompt + ", " -%}{%- endif -%}{%- endfor -%}
{%- set ns.system_prompt = ns.system_prompt + "]<|tool_list_end|>" -%}
{%- endif -%}
{%- if ns.system_prompt -%}{{- "<|im_start|>system\\n" + ns.system_prompt + "<|im_end|>\\n" -}}{%- endif -%}
{%- for message in messages -%}
{{- "<|im_start|>" + message["role"] + "\\n" -}}
{%- set content = message["content"] -%}{%- if content is not string -%}{%- set content = content | tojson -%}{%- endif -%}
{%- if message["role"] == "tool" -%}{%- set content = "<|tool_response_start|>" + content + "<|tool_response_end|>" -%}{%- endif -%}
{{- content + "<|im_end|>\\n" -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- "<|im_start|>assistant\\n" -}}{%- endif -%}""")

style("toolace")("""{%- macro call(f) -%}{{ f.name }}({% for k, v in (f.arguments.items() if f.arguments is mapping else {}) %}{{ k }}={{ v | pprint }}{{ ', ' if not loop.last }}{% endfor %}){%- endmacro -%}
{%- for m in messages -%}
{{ m.role }}: {{ m.content if m.content }}{% if m.tool_calls %}[{% for c in m.tool_calls %}{{ call(c.function) }}{{ ', ' if not loop.last }}{% endfor %}]{% endif %}

{% endfor -%}
{% if tools %}{{ tools | pprint }}
{% endif -%}
assistant:""")

style("tools_as_xml")("""{%- macro node(name, value, depth=0) -%}
{%- set pad = '  ' * depth -%}
{%- if value is mapping -%}
{{ pad }}<{{ name }}>
{% for k, v in value|dictsort -%}
{{ node(k, v, depth + 1) }}
{%- endfor -%}
{{ pad }}</{{ name }}>
{% elif value is sequence and value is not string -%}
{%- for v in value -%}{{ node(name, v, depth) }}{%- endfor -%}
{%- else -%}
{{ pad }}<{{ name }}>{{ value | string | e }}</{{ name }}>
{% endif -%}
{%- endmacro -%}
{%- for t in tools or [] -%}{{ node('tool', t.function) }}{%- endfor -%}
{%- for m in messages -%}{{ node('message', m) }}{%- endfor -%}""")

style("schema_walk")("""{%- for t in tools or [] -%}
{{ t.function.name }}:
{%- for name, spec in t.function.parameters.properties | dictsort(reverse=true) recursive %}
{{ '  ' * loop.depth }}- {{ name }}{{ '*' if name in t.function.parameters.required }}: {{ spec.type if spec.type is string else spec.type | join('/') }}
{%- if spec.properties is defined %}{{ loop(spec.properties | dictsort) }}{% endif -%}
{%- endfor %}
{% endfor -%}
{%- for m in messages %}{{ m.role[0] | upper }}>{{ m.content }}
{% endfor -%}""")

# ---- features of the language, dressed as templates ----

style("caller_blocks")("""{%- macro turn(role, tag='turn') -%}
<{{ tag }}{{ {'role': role, 'n': varargs | length or none} | xmlattr }}>{{ caller(role | upper) }}</{{ tag }}>
{% endmacro -%}
{%- for m in messages -%}
{% call(shout) turn(m.role, 'turn', 1, 2) %}{{ shout[:1] }}:{{ m.content | default('-', true) | truncate(12, true, '…', 0) }}{% endcall %}
{%- endfor -%}
{%- if add_generation_prompt %}{% call(_) turn('assistant') %}{% endcall %}{% endif -%}""")

style("set_blocks")("""{% set head | trim | replace('\\n', ' ') %}
  {% for m in messages %}
  {{ m.role }}
  {% endfor %}
{% endset %}
{% set body %}{% for m in messages %}{% filter indent(2, true) %}{{ m.content }}{% endfilter %}

{% endfor %}{% endset %}
[{{ head }}] {{ head | length }} {{ body | wordcount }}
{{ body -}}
{% with n = messages | length, half = (messages | length) // 2 %}{{ n }}/{{ half }}/{{ n % 2 }}{% endwith %}
{{- ' ' ~ (messages | length is divisibleby 2) }}""")

style("break_and_continue")("""{%- for m in messages -%}
{%- if m.role == 'system' %}{% continue %}{% endif -%}
{%- if loop.index > 4 %}{{ '[cut ' ~ loop.revindex ~ ']' }}{% break %}{% endif -%}
{{ loop.cycle('>', '<') }} {{ m.content }} {{ '(new)' if loop.changed(m.role) else '(same)' }}
{% else -%}
(nobody spoke)
{% endfor -%}""")

style("slices_and_groups")("""{%- for role, group in messages | groupby('role') -%}
{{ role }} x{{ group | length }}: {{ group | map(attribute='content') | map('string') | map('trim') | join(' | ') }}
{% endfor -%}
{% for row in messages | map(attribute='role') | list | batch(2, '-') %}{{ row | join(',') }};{% endfor %}
{% for part in messages | slice(2) %}{{ part | length }}{% endfor %}
{{ (messages | map(attribute='role') | unique | list)[::-1] }} {{ messages[1:-1] | length }} {{ messages[-2:] | map(attribute='role') | first | default('none') }}""")

style("numbers")("""{%- set total = messages | map(attribute='content') | select('string') | map('length') | sum -%}
{{ total }} {{ total / 3 }} {{ (total / 3) | round(2) }} {{ total // 4 }} {{ total % 4 }} {{ '%05d|%.1f|%x' | format(total, total / 7, total) }} {{ '{:>6,}|{:+d}|{:.2e}'.format(total * 1000, total, total / 1) }} {{ total | filesizeformat }} {{ [total, 3, 2.5] | max }} {{ -total | abs }} {{ 2 ** 10 - total }}
{% for m in messages if m.content is string and m.content | length is gt 1 %}{{ loop.index }}.{{ m.content | length }} {% endfor %}""")

style("strings")("""{%- for m in messages -%}
{%- set c = m.content if m.content is string else m.content | tojson -%}
{{ c.split() | length }} {{ c.partition(' ')[0] }} {{ c.find('a') }} {{ c.count('\\n') }} {{ c | title }} {{ c.swapcase() }} {{ c | center(9) }}| {{ c.zfill(4) }} {{ c | urlencode }} {{ c.isascii() }} {{ c.splitlines() }} {{ c | striptags }} {{ c[::2] }} {{ 'A' < c }} {{ c | replace('a', 'b', 1) }} {{ c.removeprefix('H') }} {{ c.rsplit(None, 1) | last }}
{% endfor -%}""")

style("undefined_everywhere")("""{{ nothing }}{{ nothing | default('a') }}{{ nothing is defined }}{{ (nothing or 'b') }}{% for x in nothing %}x{% endfor %}{% if not nothing %}c{% endif %}{{ (messages[0].nothing is undefined) if messages }}{{ nothing | length }}{{ [nothing, 1] | join('-') }}{{ 'x' ~ nothing }}{{ nothing == other_nothing }}
{%- for m in messages %}{{ m.name | default(m.role) }}{{ m.tool_calls | default([]) | length }}{% endfor -%}""")

style("raises_by_role")("""{%- set allowed = ('system', 'user', 'assistant') -%}
{%- for m in messages -%}
{%- if m.role not in allowed -%}{{ raise_exception("Message " ~ loop.index ~ " has the role '" ~ m.role ~ "', wanted one of " ~ allowed | join(', ')) }}{%- endif -%}
{%- if m.content is not string -%}{{ raise_exception('Content of ' ~ m.role ~ ' is ' ~ ('a list' if m.content is sequence else 'missing')) }}{%- endif -%}
{{ m.role }}={{ m.content }};
{%- endfor -%}""")

style("fails_on_odd_content")("""{%- for m in messages -%}{{ '[' + m.role + '] ' + m.content + '\\n' }}{%- endfor -%}""")

style("json_log")("""{%- for m in messages -%}
{{ m | tojson }}
{% endfor -%}
{{ {'n': messages | length, 'roles': messages | map(attribute='role') | list, 'tools': tools} | tojson(indent=2) }}
{{ messages | tojson(separators=(',', ':'), ensure_ascii=true, sort_keys=true) }}""")

style("raw_and_comments")("""{# a comment {{ not.run }} #}{% raw %}{{ literally }} {% raw-looking %}{% endraw %}
{%- for m in messages %}
{#- between -#}
{{ '{{' ~ m.role ~ '}}' }}{# x #} {{ "{%" }} {{- m.content -}} {{ "%}" }}
{%- endfor +%}
{{ "#}" if true }}""")

style("thinking_parts")("""{%- for m in messages -%}
<|{{ m.role }}|>
{%- if m.content is string -%}{{ m.content }}
{%- elif m.content is mapping -%}{{ m.content.text }}
{%- elif m.content is none or m.content is undefined -%}(nothing)
{%- else -%}
  {%- for p in m.content -%}
    {%- if p is string -%}{{ p }}
    {%- elif p.type == 'text' -%}{{ p.text }}
    {%- elif p.type == 'thinking' -%}<think>{{ p.thinking }}</think>
    {%- elif p.type in ('image', 'image_url', 'audio', 'video') -%}<|{{ p.type.split('_')[0] }}_{{ loop.index0 }}|>
    {%- else -%}{{ raise_exception('A part of the kind ' ~ p.type ~ ' is not known') }}
    {%- endif -%}
    {{- ' ' if not loop.last -}}
  {%- endfor -%}
{%- endif -%}
{%- if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif -%}
{%- endfor -%}
{{- '<|assistant|>' if add_generation_prompt -}}""")

STYLE_VARS = {
    "documents": [{"title": "Tides", "text": "The moon pulls the sea twice a day & more."}, {"text": "<b>Second</b>"}],
    "image": [{"type": "text", "text": " What is "}, {"type": "image"}, {"type": "text", "text": "this? "}],
}


def style_chats(user, said, system, call, result, tool):
    """Conversations beside those of templates.py."""
    two = call({"city": "Paris", "days": 3})
    two = {**two, "tool_calls": two["tool_calls"] + [{"id": "call67890", "type": "function",
                                                     "function": {"name": "now", "arguments": {}}}]}
    second = {**result, "name": "now", "tool_call_id": "call67890", "content": "{\"h\": 12}"}
    return {
        "image": {"messages": [user(STYLE_VARS["image"]), said("A boat."), user("Sure?")]},
        "documents": {"messages": [system("S"), user("When is the tide?")], "documents": STYLE_VARS["documents"]},
        "two_calls": {"messages": [user("w?"), two, result, second, said("It is 22 C at 12."), user("thanks")], "tools": [tool]},
        "no_think": {"messages": [system("Be short. /no_think"), user("q /think"), said("<think>a</think>b"), user("r")],
                     "enable_thinking": False, "thinking": False},
        "odd_role": {"messages": [{"role": "developer", "content": "D"}, user("u"), {"role": "critic", "content": "c", "name": "Eve"}]},
        "empty_texts": {"messages": [system(""), user(""), said(""), user(" ")]},
        "nested": {"messages": [user("{'a': [1, 2]}"), said("line one\nline two\n\n  three")], "date_string": "1 Jan 2000",
                   "controls": {"length": "long"}, "builtin_tools": ["get_weather", "code_interpreter"]},
    }
