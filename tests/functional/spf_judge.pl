# Results of SPF checks by Mail::SPF, as an independent judge.
#
#     perl spf_judge.pl PORT
#
# PORT is that of a name server on 127.0.0.1. Each line of the input is a JSON object with the
# address of a client, the sender and the name in HELO. Each line of the output is one with the result,
# the explanation of the domain, and the reason.

use strict;
use warnings;
use JSON::PP;
use Mail::SPF;
use Net::DNS::Resolver;

my $json = JSON::PP->new->canonical;
my $server = Mail::SPF::Server->new(
    hostname => 'mx.receiver.example',
    default_authority_explanation => '',
    dns_resolver => Net::DNS::Resolver->new(
        nameservers => ['127.0.0.1'],
        port        => $ARGV[0],
        recurse     => 0,
        defnames    => 0,
        dnsrch      => 0,
        retry       => 2,
        udp_timeout => 10,
        tcp_timeout => 10,
    ),
);

$| = 1;
while (my $line = <STDIN>) {
    my $case = $json->decode($line);
    my $answer = eval {
        my $request = Mail::SPF::Request->new(
            versions      => [1],
            scope         => 'mfrom',
            identity      => $case->{sender},
            ip_address    => $case->{address},
            helo_identity => $case->{helo},
        );
        my $result = $server->process($request);
        my $explanation = $result->is_code('fail') ? $result->authority_explanation : '';
        {
            result      => $result->code,
            explanation => "$explanation",
            reason      => $result->text,
        };
    };
    $answer //= {result => 'exception', explanation => '', reason => "$@"};
    print $json->encode($answer), "\n";
}
