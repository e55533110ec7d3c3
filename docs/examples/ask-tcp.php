<?php
// Ask a sensor over TCP: php ask-tcp.php [ADDRESS [SENSOR]]

[, $address, $sensor] = $argv + [1 => 'tcp://127.0.0.1:50007', 2 => '20'];
$client = stream_socket_client($address, $code, $text, 5) or exit("usbgate is not there\n");
stream_set_timeout($client, 15);
fwrite($client, "MSG:J_ID:{$sensor}_ORIGIN:website_TAG:1\n");
$reply = fgets($client);
if ($reply && !str_starts_with($reply, 'ERROR:')) { // the request: it is accepted
    $reply = fgets($client);
}
$reply = rtrim($reply ?: exit("no answer\n"));
preg_match_all('/(?:^|_)([A-Z][A-Z0-9.+-]*):(.*?)(?=_[A-Z][A-Z0-9.+-]*:|$)/', $reply, $found);
$fields = array_combine($found[1], $found[2]);
isset($fields['ERROR']) && exit("$fields[ERROR]: $fields[TEXT]\n");
foreach (array_diff_key($fields, array_flip(['ID', 'MSG', 'TAG', 'AT'])) as $field => $value) {
    echo "$field is $value\n";
}
